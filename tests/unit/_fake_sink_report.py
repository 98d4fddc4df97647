"""A sink report of a made-up model of 12 layers: three levels, residual sinks, and tokens that try to do harm."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from _fake_report import fake_info, fake_provenance

from attnscope.core.report import Interval, Missing
from attnscope.core.sink_report import (
    AttentionEvidence,
    Contribution,
    CurvePoint,
    Estimate,
    HeadService,
    InterventionEffect,
    MassiveActivation,
    NormRead,
    Quantisation,
    ResidualEvidence,
    ResidualSinkDimension,
    ResidualSinks,
    ResidualTrace,
    Sink,
    SinkLevel,
    SinkReport,
    Weakening,
    Writer,
    WriteTest,
)

LAYERS, HEADS, PROMPTS = 12, 8, 16
LEVELS = (("primary", 2, 9, 480.0), ("secondary", 6, 5, 120.0), ("short-lived", 8, 2, 30.0))
TOKENS = ("<script>alert(1)</script>", "$x$", "\n", "[bold red]markup[/bold red]", "</script><img src=x>", " the")
NOTE = "A note with <script>alert('note')</script> in it."


def estimate(value: float, spread: float = 0.0, n: int = PROMPTS) -> Estimate:
    interval = Interval(low=value - spread, high=value + spread) if spread else None
    return Estimate(value=value, n=n, interval=interval)


def _share(kind: str, layer: int, rng: np.random.Generator) -> float:
    start, life = {"primary": (2, 9), "secondary": (6, 5)}.get(kind, (8, 2))
    top = {"primary": 0.55, "secondary": 0.18}.get(kind, 0.04)
    inside = start < layer <= start + life
    weaker = 0.65 if kind == "primary" and layer > 6 else 1.0
    return float(np.clip((top * weaker if inside else 0.01) * (1 + 0.08 * rng.standard_normal()), 0, 1))


def _contributions(norm: float, layer: int) -> tuple[Contribution, ...]:
    parts = [("embedding", -1, 0.01), ("attention", 0, 0.02), ("mlp", 0, -0.05), ("attention", layer, 0.03)]
    parts += [("mlp", layer - 1, 0.11), ("mlp", layer, 0.88)]
    return tuple(Contribution(module=m, layer=at, along=norm * s, share=s) for m, at, s in parts)  # type: ignore[arg-type]


def _sink(prompt: int, position: int, token: str, level: int, rng: np.random.Generator) -> Sink:
    kind, start, life, norm = LEVELS[level]
    shares = tuple(_share(kind, layer, rng) for layer in range(LAYERS))
    writer = Writer(
        module="mlp",
        layer=start,
        share=0.88,
        cosine_to_direction=0.99,
        cosine_to_primary_write=None if kind == "primary" else 0.985,
        output_norm=norm * 0.9,
        neurons=(17, 204, 611),
    )
    residual = ResidualEvidence(
        first_layer=start,
        lifetime=life,
        norm=norm,
        norm_ratio=norm / 8,
        cosine=0.98,
        writer=writer,
        contributions=_contributions(norm, start),
    )
    attention = AttentionEvidence(
        share=max(shares), layer=int(np.argmax(shares)), share_by_layer=shares, sink_heads=max(shares) * 0.9
    )
    return Sink(
        prompt=prompt,
        position=position,
        token=token,
        token_id=position % 50,
        kind=kind,  # type: ignore[arg-type]
        level=level,
        residual=residual,
        attention=Missing(reason="too few queries see it") if kind == "short-lived" else attention,
    )


def _sinks(rng: np.random.Generator) -> list[Sink]:
    sinks = []
    for prompt in range(PROMPTS):
        sinks.append(_sink(prompt, 0, "<s>", 0, rng))
        if prompt % 2 == 0:
            sinks.append(_sink(prompt, 40 + 3 * prompt, TOKENS[prompt // 2 % len(TOKENS)], 1, rng))
            sinks.append(_sink(prompt, 180 + prompt, TOKENS[(prompt // 2 + 1) % len(TOKENS)], 1, rng))
        if prompt % 5 == 0:
            sinks.append(_sink(prompt, 300, ",", 2, rng))
        if prompt % 7 == 0:
            only = _sink(prompt, 400 + prompt, ".", 1, rng).model_copy(
                update={
                    "kind": "attention only",
                    "level": None,
                    "residual": Missing(reason="never along the primary direction"),
                }
            )
            sinks.append(only)
    return sinks


def _levels(sinks: list[Sink]) -> tuple[SinkLevel, ...]:
    found = []
    for index, (kind, start, life, norm) in enumerate(LEVELS):
        held = [sink for sink in sinks if sink.level == index]
        tokens = [sink.token for sink in held]
        counts = sorted(((t, tokens.count(t)) for t in set(tokens)), key=lambda pair: (-pair[1], pair[0]))
        rows = [s.attention.share_by_layer for s in held if isinstance(s.attention, AttentionEvidence)]
        shares = tuple(np.mean(rows, axis=0).tolist()) if rows else (None,) * LAYERS
        found.append(
            SinkLevel(
                first_layer=start,
                lifetime=life,
                kind=kind,  # type: ignore[arg-type]
                n_sinks=len(held),
                n_prompts=len({sink.prompt for sink in held}),
                tokens=tuple(counts[:5]),
                norm=norm,
                share_by_layer=shares,
            )
        )
    return tuple(found)


def _heads(rng: np.random.Generator) -> tuple[HeadService, ...]:
    records = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            primary = float(rng.beta(3, 2) if layer > 2 else rng.beta(1, 20))
            secondary = estimate(float(rng.beta(1, 8)), 0.02) if layer > 6 else Missing(reason="no secondary sinks yet")
            dormant = estimate(primary**2, 0.03) if layer else Missing(reason="layer 0 has no sinks")
            records.append(
                HeadService(
                    layer=layer,
                    head=head,
                    primary_share=estimate(primary, 0.03),
                    secondary_share=secondary,
                    dormant=dormant,
                    dormant_by_prompt=_dormant_by_prompt(primary, layer, rng),
                )
            )
    return tuple(records)


def _dormant_by_prompt(primary: float, layer: int, rng: np.random.Generator) -> tuple[float | None, ...]:
    """One prompt has a single token; layer 0 was not measured."""
    if not layer:
        return (None,) * PROMPTS
    drawn = np.clip(primary**2 + 0.2 * rng.standard_normal(PROMPTS), 0, 1).tolist()
    return (*drawn[:-1], None)


def _traces(sinks: list[Sink]) -> tuple[ResidualTrace, ...]:
    found = []
    for index, (_, start, life, norm) in enumerate(LEVELS):
        inside = [start <= block < start + life for block in range(LAYERS)]
        found.append(
            ResidualTrace(
                level=index,
                n=sum(sink.level == index for sink in sinks),
                norm=tuple(norm if on else 8.0 + block for block, on in enumerate(inside)),
                cosine=tuple(0.98 if on else 0.1 for on in inside),
            )
        )
    others = tuple(8.0 + block for block in range(LAYERS))
    return (*found, ResidualTrace(level=None, n=PROMPTS * 500, norm=others, cosine=(0.05,) * LAYERS))


def _weakening() -> tuple[Weakening, ...]:
    without = [0.01, 0.02, 0.05, 0.5, 0.56, 0.55, 0.57, 0.54, 0.52, 0.5, 0.47, 0.4]
    rows = []
    for layer, share in enumerate(without):
        held = estimate(share * 0.7, 0.03, 8) if layer > 6 else Missing(reason="no prompt has a secondary sink here")
        rows.append(Weakening(layer=layer, with_secondary=held, without_secondary=estimate(share, 0.02, 8)))
    return tuple(rows)


def _writes() -> tuple[WriteTest, ...]:
    found = []
    for level, (_, start, life, norm) in enumerate(LEVELS[:2]):
        factors = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
        curve = tuple(
            CurvePoint(
                factor=f,
                norm=8 + norm * f,
                share=0.02 + 0.5 * min(f, 1.0) / (level + 1),
                lifetime=0.0 if f < 0.2 else life * min(1.0, f + 0.1),
                loss=3.1 + 0.6 * max(0.0, 1 - f) ** 2 / (level + 1),
            )
            for f in factors
        )
        found.append(
            WriteTest(
                level=level,
                layer=start,
                module="mlp",
                curve=curve,
                neurons_removed=3 if level == 0 else None,
                loss_without_neurons=3.6 if level == 0 else None,
                loss_change=estimate(0.6 / (level + 1), 0.08),
                control_changes=(0.31, 0.28, 0.35, 0.3, 0.29),
                random_positions_changes=(0.01, 0.02, 0.0, 0.01, -0.01),
            )
        )
    return tuple(found)


def _residual_sinks() -> ResidualSinks:
    reads = []
    for layer in range(LAYERS):
        for read in ("attention", "mlp"):
            depth = (2 * layer + (read == "mlp")) / (2 * LAYERS)
            size = 4 + 30 * depth
            reads.append(_read(read, layer, size, 117 if layer else 42))
    reads.append(_read("final", LAYERS, 22.0, 117))
    return ResidualSinks(
        dimensions=(
            ResidualSinkDimension(dimension=117, score=24.5, reads=23, mean_abs=26.0, writer="mlp 1", weight=0.004),
            ResidualSinkDimension(dimension=42, score=8.1, reads=2, mean_abs=9.5, writer=None, weight=0.3),
        ),
        reads=tuple(reads),
        massive=(
            MassiveActivation(layer=3, prompt=0, position=0, dimension=201, value=-412.5, ratio=1830.0),
            MassiveActivation(layer=4, prompt=0, position=0, dimension=201, value=-415.0, ratio=1702.0),
        ),
        massive_floor=100.0,
        massive_ratio=1000.0,
        logits_direct=0.03,
        interventions=tuple(
            InterventionEffect(
                intervention=name,  # type: ignore[arg-type]
                loss_change=estimate(value, 0.03),
                control_changes=tuple(0.004 * k for k in range(5)),
            )
            for name, value in (
                ("mean", 0.05),
                ("zero", 0.82),
                ("clamp", 0.31),
                ("direct_zero", 0.37),
                ("denom_zero", 0.26),
            )
        ),
        quantisation=Quantisation(loss=3.1, quantised=4.2, sinks_apart=3.4, random_apart=(4.15, 4.2, 4.11, 4.19)),
    )


def _read(read: str, layer: int, size: float, dimension: int) -> NormRead:
    r = size / (size + 14)
    return NormRead(
        read=read,
        layer=layer,
        score=size,
        argmax=dimension,
        argmax_hit=0.9,
        peak=size / 2,
        r=r,
        weight=0.01,
        denominator=1 / (1 - r**2) ** 0.5,
        direct=0.02 + 0.1 * (1 - r),
        rms=0.45 * (1 - r**2) ** 0.5,
        bound=(1 - r**2) ** 0.5,
    )


@lru_cache(maxsize=2)
def fake_sink_report(bare: bool = False) -> SinkReport:
    """Return the report; a bare one holds no interventions, no residual sinks and no sinks at all."""
    rng = np.random.default_rng(0)
    sinks = [] if bare else _sinks(rng)
    return SinkReport(
        model=fake_info(LAYERS, HEADS),
        mode="relative",
        thresholds={"cosine": 0.9, "lifetime of a primary sink": 0.66, "read": "block output"},
        n_prompts=PROMPTS,
        n_tokens=PROMPTS * 512,
        loss=Missing(reason="no answer tokens <b>here</b>") if bare else estimate(3.1, 0.1),
        primary_layers=None if bare else (2, 9),
        levels=() if bare else _levels(sinks),
        traces=() if bare else _traces(sinks),
        sinks=tuple(sinks),
        heads=() if bare else _heads(rng),
        weakening=() if bare else _weakening(),
        writes=() if bare else _writes(),
        residual_sinks=Missing(reason="LayerNorm <b>only</b>") if bare else _residual_sinks(),
        provenance=fake_provenance(),
        notes=(NOTE,),
    )
