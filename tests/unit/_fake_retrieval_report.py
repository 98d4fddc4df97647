"""A retrieval report of a made-up model of 12 layers: six retrieval heads, missing pieces, text that tries to harm."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from _fake_report import fake_info, fake_provenance
from _fake_sink_report import estimate

from attnscope.core.report import Interval, Missing
from attnscope.core.retrieval_report import (
    AblationStep,
    BudgetPoint,
    NeedleCell,
    RankingAgreement,
    RankingStability,
    RetrievalHead,
    RetrievalReport,
)
from attnscope.core.sink_report import Estimate

LAYERS, HEADS, KV_HEADS, NEEDLES = 12, 8, 4, 48
PLANTED = {(6, 4): 0.71, (5, 0): 0.52, (8, 2): 0.36, (9, 7): 0.24, (4, 1): 0.17, (10, 3): 0.11}
NOTE = "A needle reads <script>alert('note')</script> and $x$."
REASON = "the question <b>cannot</b> be told from the needle"
COUNTS = (1, 2, 4, 8, 16)


def ranked() -> list[str]:
    rest = [(layer, head) for layer in range(LAYERS) for head in range(HEADS) if (layer, head) not in PLANTED]
    return [f"L{layer}H{head}" for layer, head in (*PLANTED, *rest)][:16]


def share(value: float, spread: float = 0.0, n: int = NEEDLES) -> Estimate:
    interval = Interval(low=max(0.0, value - spread), high=min(1.0, value + spread)) if spread else None
    return Estimate(value=value, n=n, interval=interval)


def _heads(rng: np.random.Generator) -> tuple[RetrievalHead, ...]:
    heads = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            score = PLANTED.get((layer, head), float(0.04 * rng.beta(1, 6)))
            echo = float(rng.beta(1, 9))
            heads.append(
                RetrievalHead(
                    layer=layer,
                    head=head,
                    kv_head=head // (HEADS // KV_HEADS),
                    retrieval=Missing(reason="layer 0 <b>streams</b>") if not layer else share(score, 0.06, 40),
                    retrieval_decoded=share(score * 1.15, 0.09, 31),
                    qr_score=Missing(reason=REASON),
                    razor_echo=share(echo, 0.02, 16),
                    razor_induction=share(float(rng.beta(1, 6)), 0.03, 16),
                    vertical_slash_mass=share(float(rng.beta(8, 2)), n=4) if head else Missing(reason="one block"),
                    vertical_size=128 if head else None,
                    slash_size=384 if head else None,
                )
            )
    return tuple(heads)


def _cells(answered: bool) -> tuple[NeedleCell, ...]:
    found = []
    for i, length in enumerate((512, 1024, 2048, 4096)):
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
            if (length, depth) == (4096, 0.25):
                continue
            value = max(0.0, 1 - 0.13 * i * (1 - abs(2 * depth - 1))) if answered else 0.0
            found.append(NeedleCell(length=length, depth=depth, accuracy=share(value, 0.08 if value < 1 else 0.0, 3)))
    return tuple(found)


def _curve(rng: np.random.Generator) -> tuple[AblationStep, ...]:
    steps = []
    for mode, floor in (("zero", 0.0), ("uniform", 0.7)):
        for k in COUNTS:
            value = max(floor, 1 - 0.26 * k) if mode == "zero" else max(floor, 1 - 0.01 * k)
            draws = tuple(float(np.clip(1 - 0.004 * k + 0.01 * rng.standard_normal(), 0, 1)) for _ in range(5))
            draws = draws if mode == "zero" else (*draws[:4], value - 0.02)
            mean = float(np.mean(draws))
            alone = Missing(reason="too few <b>other</b> heads")
            steps.append(
                AblationStep(
                    mode=mode,  # type: ignore[arg-type]
                    heads=tuple(ranked()[:k]),
                    accuracy=share(value, 0.07),
                    change=estimate(value - 1.0, 0.07 if mode == "zero" else 0.3, NEEDLES),
                    control=share(mean, 0.02) if k < 16 else alone,
                    control_draws=draws if k < 16 else (),
                    layer_matched=k < 8,
                )
            )
    return tuple(steps)


def _budgets(rng: np.random.Generator) -> tuple[BudgetPoint, ...]:
    found = []
    for length, whole in ((1024, 1.0), (4096, 0.9)):
        for budget in (0.0, 0.125, 0.25, 0.5, 0.75):
            value = whole * min(1.0, 0.1 + 3.8 * budget)
            draws = tuple(float(np.clip(whole * budget + 0.05 * rng.standard_normal(), 0, 1)) for _ in range(5))
            n = round(budget * LAYERS * KV_HEADS)
            found.append(
                BudgetPoint(
                    length=length,
                    budget=budget,
                    full=tuple(f"L{i // KV_HEADS}G{i % KV_HEADS}" for i in range(n)),
                    accuracy=share(value, 0.06),
                    change=estimate(value - whole, 0.05, NEEDLES),
                    control=share(float(np.mean(draws)), 0.05) if budget else Missing(reason="no KV head to choose"),
                    control_draws=draws if budget else (),
                    kept=0.1 + 0.9 * budget,
                )
            )
    return tuple(found)


def _stability() -> RankingStability:
    trials = tuple(range(1, 41))
    overlap = tuple(1 - 0.5 * (1 - t / 40) ** 3 for t in trials)
    return RankingStability(
        k=20,
        trials=trials,
        overlap=overlap,
        low=tuple(max(0.0, v - 0.25 * (1 - t / 40)) for v, t in zip(overlap, trials, strict=True)),
        settled=next(t for t, v in zip(trials, overlap, strict=True) if v >= 0.9),
    )


def _agreements() -> tuple[RankingAgreement, ...]:
    pairs = (
        ("retrieval", "retrieval_decoded", 0.91, 17),
        ("retrieval", "razor_echo", 0.22, 5),
        ("retrieval", "<i>other</i>", None, 4),
    )
    return tuple(
        RankingAgreement(first=a, second=b, spearman=rho, k=20, common=n, expected=20 * 20 / 96)
        for a, b, rho, n in pairs
    )


def _silent() -> tuple[RetrievalHead, ...]:
    none = Missing(reason="the model answered <b>no</b> needle")
    absent = dict.fromkeys(
        ("retrieval", "retrieval_decoded", "qr_score", "razor_echo", "razor_induction", "vertical_slash_mass"), none
    )
    return tuple(
        RetrievalHead(layer=0, head=head, kv_head=0, vertical_size=None, slash_size=None, **absent)
        for head in range(HEADS)
    )


@lru_cache(maxsize=2)
def fake_retrieval_report(bare: bool = False) -> RetrievalReport:
    """Return the report; in a bare one the model answered no needle, so nothing else was measured."""
    rng = np.random.default_rng(0)
    return RetrievalReport(
        model=fake_info(LAYERS, HEADS, KV_HEADS),
        n_needles=NEEDLES,
        n_answered=0 if bare else 40,
        n_others=0 if bare else 3,
        cells=_cells(not bare),
        heads=_silent() if bare else _heads(rng),
        stability=Missing(reason="fewer than two <b>answered</b> needles") if bare else _stability(),
        agreements=() if bare else _agreements(),
        ranking=() if bare else tuple(ranked()),
        threshold=0.1,
        curve=() if bare else _curve(rng),
        curve_missing="no head has a <b>score</b>" if bare else None,
        budgets=() if bare else _budgets(rng),
        budgets_missing="--no-budgets was <b>given</b>" if bare else None,
        sink_tokens=None if bare else 4,
        recent_tokens=None if bare else 256,
        provenance=fake_provenance(),
        notes=(NOTE,),
    )
