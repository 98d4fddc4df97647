"""The parts of a retrieval report, each measured once and kept when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .analyses.kv_choice import reduce_to_kv
from .core.errors import UnsupportedModelError
from .core.ids import HeadId
from .core.retrieval_report import AblationStep, BudgetPoint
from .core.stages import Stages
from .core.track import Track, counted
from .decoding.evaluate import BudgetPlan, budget_accuracy
from .engine.ablation_curve import ablation_curve
from .engine.accuracy import token_accuracy
from .engine.collect import collect
from .engine.patterns import vertical_slash
from .engine.qrhead import qr_scores
from .engine.retrieval_decoding import decoded_retrieval
from .reports.retrieval import ablation_step
from .retrieval_plan import THRESHOLD, RetrievalPlan

if TYPE_CHECKING:
    from .models._base import Scope


class RetrievalParts:
    """The parts of a report, each kept when it is done."""

    def __init__(
        self, scope: Scope, plan: RetrievalPlan, stages: Stages, track: Track, options: dict[str, Any]
    ) -> None:
        self.scope, self.plan, self.stages, self.track, self.options = scope, plan, stages, track, options
        self.sets: dict[str, tuple[Any, Any]] = {}

    def needle(self, prompts: Any) -> xr.Dataset:
        """Teacher-forced retrieval of the answered needles."""
        return self._collected("needle", "Retrieval scores", prompts, ["retrieval"])

    def decoded(self, prompts: Any) -> xr.Dataset:
        """Retrieval while decoding, of all needles."""
        with self.track("Decoding needles", len(prompts)) as advance:
            return self.stages.keep_dataset(
                "decoded",
                lambda: decoded_retrieval(
                    self.scope,
                    prompts,
                    steps=self.plan.decode_steps,
                    implementation=self.options["implementation"],
                    progress=counted(advance),
                ),
            )

    def qrhead(self) -> xr.Dataset:
        """QRHead scores."""
        task = self.plan.passage_task(self.scope.info)
        prompts, null = task.build(self.scope.tokenizer), task.null(self.scope.tokenizer)
        self.sets["passages"] = (task, prompts)
        with self.track("Question-focused heads", 2 * sum(map(len, prompts["input_ids"]))) as advance:
            return self.stages.keep_dataset(
                "qrhead",
                lambda: qr_scores(self.scope, prompts, null, **self.options, progress=counted(advance)),
            )

    def razor(self) -> xr.Dataset:
        """RazorAttention's echo and induction."""
        task = self.plan.echo_task(self.scope.info)
        prompts = task.build(self.scope.tokenizer)
        self.sets["echoes"] = (task, prompts)
        found = self._collected("razor", "Echo and induction", prompts, ["echo", "razor_induction"])
        return found.rename(echo="razor_echo")

    def patterns(self) -> xr.Dataset:
        """Vertical-and-slash statistics."""
        task = self.plan.pattern_task(self.scope.info)
        prompts = task.build(self.scope.tokenizer)
        self.sets["text"] = (task, prompts)
        with self.track("Columns and diagonals", len(prompts)) as advance:
            return self.stages.keep_dataset(
                "patterns",
                lambda: vertical_slash(
                    self.scope,
                    prompts,
                    implementation=self.options["implementation"],
                    progress=counted(advance),
                ),
            )

    def curve(self, prompts: Any, ranking: list[HeadId], rows: Any) -> tuple[tuple[AblationStep, ...], str | None]:
        """Needle accuracy without the first heads of the ranking, or why there is none."""
        if not self.plan.causal:
            return (), "heads were not ablated (causal=False)"
        if prompts is None:
            return (), "no needle was answered, so ablation cannot cost anything"
        retrieval = {HeadId(r.layer, r.head) for r in rows if getattr(r.retrieval, "value", 0.0) >= THRESHOLD}

        def accuracy(edits: Any) -> np.ndarray:
            return np.asarray(token_accuracy(self.scope, prompts, edits=edits, **self.options) == 1, dtype=np.float64)

        steps = [(mode, n) for mode in ("zero", "uniform") for n in self.plan.counts if n <= len(ranking)]
        found = []
        with self.track("Ablating heads", len(steps) * (1 + self.plan.draws)) as advance:
            for i, (mode, count) in enumerate(steps):
                before = i * (1 + self.plan.draws)

                def measure(mode: Any = mode, count: int = count, before: int = before) -> AblationStep:
                    (step,) = ablation_curve(
                        self.scope.info,
                        ranking,
                        accuracy,
                        excluded=tuple(retrieval),
                        counts=(count,),
                        modes=(mode,),
                        draws=self.plan.draws,
                        seed=self.plan.seed,
                        progress=lambda done, _: advance(before + done),
                    )
                    whole = np.ones(len(prompts))
                    return ablation_step(mode, step.heads, step.ablated, step.controls, whole, step.layer_matched)

                found.append(self.stages.keep(f"without-{count}-{mode}", AblationStep, measure))
        return tuple(found), None

    def budgets(self, statistics: dict[str, xr.Dataset]) -> tuple[tuple[BudgetPoint, ...], str | None]:
        """Needle accuracy with the best KV heads full and all others streaming, or why it was not measured."""
        info, lengths = self.scope.info, self.plan.budget_lengths(self.scope.info)
        if not lengths:
            return (), "heads were not ablated (causal=False), or no budgets were asked for"
        if "needle" not in statistics:
            return (), "no needle was answered, so there is nothing to keep"
        scores = [statistics["needle"].retrieval.mean("prompt").values]
        scores += [statistics["razor"].razor_induction.mean("prompt").values] if "razor" in statistics else []
        keys = [reduce_to_kv(table, info.n_kv_heads) for table in scores]
        plan = BudgetPlan(self.plan.budgets, self.plan.budget_draws, seed=self.plan.seed)
        found: list[BudgetPoint] = []
        for length in lengths:
            prompts = self.plan.budget_grid(length).build(self.scope.tokenizer)
            with self.track(f"Streaming KV heads, {length:,} tokens", len(prompts)) as advance:
                shown = counted(advance)
                try:
                    found += self.stages.keep(
                        f"budgets-{length}",
                        list[BudgetPoint],
                        lambda prompts=prompts, shown=shown: budget_accuracy(  # type: ignore[misc]
                            self.scope,
                            prompts,
                            keys,
                            plan,
                            implementation=self.options["implementation"],
                            progress=shown,
                        ),
                    )
                except UnsupportedModelError as error:
                    return (), str(error)
        return tuple(found), None

    def _collected(self, name: str, what: str, prompts: Any, collectors: list[str]) -> xr.Dataset:
        with self.track(what, sum(map(len, prompts["input_ids"]))) as advance:
            return self.stages.keep_dataset(
                name,
                lambda: collect(self.scope, prompts, collectors, **self.options, progress=counted(advance)),
            )
