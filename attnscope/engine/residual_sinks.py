"""Residual sinks of a model: which dimensions, how they act, and what happens without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import xarray as xr

from ..analyses.intervals import bootstrap_mean
from ..analyses.residual_sinks import LEAST_RATIO, LEAST_READS, dimension_table, read_table, sink_dimensions
from ..core.errors import UnsupportedModelError
from ..core.report import Interval, Missing
from ..core.sink_report import Estimate, Intervention, InterventionEffect, Quantisation, ResidualSinks
from ..edits.norm_dimensions import NormDimensions
from .batches import PromptSet
from .loss import next_token_loss
from .norm_reads import norm_reads
from .norm_shares import norm_shares
from .norm_stream import stream
from .norms import Norm, find_norms, norm_kinds
from .quantise import w4a4

if TYPE_CHECKING:
    from ..models._base import Scope

FLOORS = {"paper": 100.0, "relative": 0.0}
MASSIVE_RATIO = 1000.0
QUANTISED_DRAWS = 3
_T = TypeVar("_T")


def residual_sinks(
    scope: Scope,
    prompts: PromptSet,
    *,
    mode: Literal["relative", "paper"] = "relative",
    draws: int = 10,
    interventions: bool = True,
    seed: int = 0,
    least_ratio: float = LEAST_RATIO,
    least_reads: float = LEAST_READS,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> ResidualSinks | Missing:
    """Find residual sink dimensions, what they do at every norm, and what the loss is without them.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        mode: `paper` asks |x| > 100 of a massive activation (2402.17762); `relative` only the ratio to the median.
        draws: sets of as many random other dimensions, for each intervention; at most three for quantisation.
        interventions: whether to measure the loss under interventions and quantisation.
        seed: of the draws.
        least_ratio: see `analyses.residual_sinks.sink_dimensions`.
        least_reads: likewise.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: called with passes over the prompts that are done, and how many there will be at most.

    Returns:
        The residual sinks, with no dimensions and no interventions where none was found; `Missing` where the model has
        no norms that read the residual stream.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: hidden states overflow.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [list(range(40))]})
        >>> found = residual_sinks(attnscope.load(device="cpu"), prompts, interventions=False)
        >>> found.dimensions[0].dimension
        43
    """
    try:
        norms = find_norms(scope)
    except UnsupportedModelError as error:
        # hidden states that overflow hide the norms: say that instead
        stream(scope, prompts, ("block_output",), lambda *_: None, implementation=implementation)
        return Missing(reason=str(error))
    step = _Steps(progress, 3 + (len(get_args(Intervention)) * (1 + draws) + 2 + QUANTISED_DRAWS) * interventions)
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    reads = step(norm_reads(scope, prompts, norms=norms, **options))
    found = sink_dimensions(reads, least_ratio=least_ratio, least_reads=least_reads)
    shares, massive = step(
        norm_shares(scope, prompts, found, norms=norms, floor=FLOORS[mode], least_ratio=MASSIVE_RATIO, **options)
    )
    table = read_table(reads, shares, found)
    effects: tuple[InterventionEffect, ...] = ()
    quantisation: Quantisation | None = None
    if interventions and found and scope.model.get_output_embeddings() is not None:

        def loss(edits: Sequence[NormDimensions] = ()) -> np.ndarray:
            return step(next_token_loss(scope, prompts, edits=edits, **options))

        baseline = loss()
        others = draw_others(scope.info.d_model, found, draws, seed)
        kinds = norm_kinds(scope)
        effects = tuple(
            _effect(name, baseline, [loss([edit_of(name, s, reads, norms, kinds)]) for s in (found, *others)])
            for name in get_args(Intervention)
        )
        quantisation = _quantisation(scope, loss, baseline, found, others[:QUANTISED_DRAWS])
    step.finish()
    return ResidualSinks(
        dimensions=dimension_table(reads, shares, found),
        reads=table,
        massive=massive,
        massive_floor=FLOORS[mode],
        massive_ratio=MASSIVE_RATIO,
        logits_direct=table[-1].direct,
        interventions=effects,
        quantisation=quantisation,
    )


def draw_others(width: int, dimensions: Sequence[int], draws: int, seed: int) -> list[tuple[int, ...]]:
    """Return random sets of as many dimensions, none of them among these; none where too few are left.

    Example:
        >>> [len(set(one) - {0, 1}) for one in draw_others(6, (0, 1), 2, seed=0)]
        [2, 2]
    """
    free = np.setdiff1d(np.arange(width), list(dimensions))
    if len(free) < len(dimensions):
        return []
    chooser = np.random.default_rng(seed)
    return [tuple(int(d) for d in sorted(chooser.choice(free, len(dimensions), replace=False))) for _ in range(draws)]


def edit_of(
    mode: Intervention,
    dimensions: Sequence[int],
    reads: xr.Dataset,
    norms: Sequence[Norm],
    kinds: Sequence[str] = ("attention", "mlp", "final"),
) -> NormDimensions:
    """Return an intervention; means are those that norms read, a clamp is at the median dimension's mean |h|."""
    values: dict[str, tuple[float, ...]] = {}
    chosen = list(dimensions)
    for i, norm in enumerate(norms):
        if mode == "mean":
            values[norm.label] = tuple(reads["norm_read_mean"].values[i, chosen].tolist())
        elif mode == "clamp":
            median = float(np.median(reads["norm_read_mean_abs"].values[i]))
            values[norm.label] = (median,) * len(chosen)
    return NormDimensions(
        tuple(chosen),
        mode,
        values,
        tuple(kinds),
        centred=any(norm.centred for norm in norms),
        biases={norm.label: norm.bias.float() for norm in norms if bool((norm.bias != 0).any())},
    )


def _effect(name: Intervention, baseline: np.ndarray, losses: Sequence[np.ndarray]) -> InterventionEffect:
    changes = [after - baseline for after in losses]
    controls = tuple(float(np.nanmean(change)) for change in changes[1:])
    return InterventionEffect(
        intervention=name,
        loss_change=_estimate(changes[0]),
        control_changes=tuple(control for control in controls if np.isfinite(control)),
    )


def _estimate(changes: np.ndarray) -> Estimate | Missing:
    measured = changes[~np.isnan(changes)]
    if not len(measured):
        return Missing(reason="no prompt has a next token")
    if not np.isfinite(measured).all():
        return Missing(reason="the loss is infinite under the intervention: hidden states overflow")
    low, high = bootstrap_mean(measured[:, None])
    interval = None if np.isnan(low[0]) else Interval(low=float(low[0]), high=float(high[0]))
    return Estimate(value=float(measured.mean()), n=len(measured), interval=interval)


def _quantisation(
    scope: Scope,
    loss: Callable[[], np.ndarray],
    baseline: np.ndarray,
    found: Sequence[int],
    others: Sequence[Sequence[int]],
) -> Quantisation | None:
    means = [float(np.nanmean(baseline))]
    try:
        for apart in ((), found, *others):
            with w4a4(scope, apart):
                means.append(float(np.nanmean(loss())))
    except UnsupportedModelError:
        return None
    if not np.isfinite(means).all():
        return None
    return Quantisation(loss=means[0], quantised=means[1], sinks_apart=means[2], random_apart=tuple(means[3:]))


class _Steps:
    """Counts passes over the prompts."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, result: _T) -> _T:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
        return result

    def finish(self) -> None:
        """Say that everything is done."""
        if self.progress is not None and self.done < self.total:
            self.progress(self.total, self.total)
