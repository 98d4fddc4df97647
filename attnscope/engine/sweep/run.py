"""Edit every head (or block, MLP, neuron, set of these) of the same prompts, and measure what it does to the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...core.errors import AttnscopeError, DeviceError, SweepError, TaskError
from ..batches import PromptSet, fingerprint
from ..checkpoint import Checkpoint
from .alternatives import Alternative, OtherPrompts, Recorded, Values, Zero
from .chunks import Chunk, Positions, chunks
from .grow import Growing, Start
from .metrics import Metric, Readout, metrics_named
from .plain import plain_logits
from .plan import Job, can_start_late, jobs
from .shared import Beginning, beginning
from .units import Module, Unit, Variant, check_units, first_block, units_of

if TYPE_CHECKING:
    from ...models._base import Scope

Method = Literal["stacked", "plain"]
"""`stacked`: variants share forwards that begin where they begin to differ; `plain`: a whole forward each."""


FAILURES = (AttnscopeError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)
"""What one variant's run may raise; anything else, an interruption above all, ends the sweep as it is."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Attributes:
        variants: units that were edited together.
        baseline: metric → `[prompts]` without edits.
        values: metric → `[prompts, variants]`, or `[prompts, variants, positions]` where each token was edited by
            itself (NaN behind a prompt's end).
        units: metric → units of its values.
        alternative: what took the units' place.
        drift: largest difference of the unedited rows of any forward from the baseline, in any metric: the numerical
            error of running only what changes.
        forwards: forwards that ran.
    """

    variants: tuple[Variant, ...]
    baseline: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    units: dict[str, str]
    alternative: str
    drift: float
    forwards: int

    def effect(self, metric: str) -> np.ndarray:
        """Return baseline − value: what the edit costs, `[prompts, variants(, positions)]`."""
        values = self.values[metric]
        return self.baseline[metric].reshape(-1, *[1] * (values.ndim - 1)) - values


def sweep(
    scope: Scope,
    prompts: PromptSet,
    variants: Module | Sequence[Sequence[Unit]] = "head",
    *,
    metrics: str | Metric | Sequence[str | Metric] = "log_probability",
    alternative: Alternative | None = None,
    positions: Positions = "all",
    base: str = "input_ids",
    method: Method = "stacked",
    freeze_heads: bool = False,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Sweep:
    """Edit each variant of the same prompts and measure the answer.

    Exactly what one forward for each variant gives (method `plain`), but a forward serves many variants: it begins at
    the first block that they edit, from the unedited run's residual stream; at the first token that they edit, with the
    keys and values of earlier tokens computed once; and a variant's row joins the batch at its own first block. Edits
    of the answer's tokens alone (`positions="answer"`) therefore cost one prefill for all heads, at any length.

    Args:
        scope: a loaded transformers model.
        prompts: with `input_ids` and the metrics' columns (`answer_ids`, `wrong_ids`, …).
        variants: a level, for all its units one by one; or the units of every variant.
        metrics: names of metrics, or your own.
        alternative: what takes a unit's place; None means zero.
        positions: tokens at which the edit acts.
        base: column of the prompts that run.
        method: see `Method`.
        freeze_heads: after a variant's own units every head gives what it gives without edits (path patching).
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most, over all variants (one variant of one prompt at the least).
        progress: called with variants done and variants in all, over prompts.
        checkpoint: a file to go on from after an interruption.

    Raises:
        TaskError: empty or too long prompts, or a column is missing.
        UnknownHeadError: the model lacks a unit.
        SweepError: one variant's run failed; the others that were done are kept in the checkpoint.
        DeviceError: the device ran out of memory.
        OutputError: the checkpoint belongs to another sweep.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9]], "answer_ids": [[11]]})
        >>> sweep(attnscope.load(device="cpu"), prompts, positions="answer").values["log_probability"].shape
        (1, 64)
    """
    if method not in ("stacked", "plain"):
        raise TaskError("method of a sweep", found=repr(method), expected="'stacked' or 'plain'")
    chosen = metrics_named(metrics)
    asked = [(unit,) for unit in units_of(scope, variants)] if isinstance(variants, str) else variants
    run = _Run(
        scope,
        chosen,
        check_units(scope, asked),
        alternative or Zero(),
        positions,
        method,
        freeze_heads,
        implementation,
        batch_tokens,
    )
    return run.over(prompts, base, progress, checkpoint)


@dataclass(eq=False)
class _Run:
    scope: Any
    metrics: list[Metric]
    variants: list[Variant]
    alternative: Alternative
    positions: Positions
    method: Method
    freeze_heads: bool
    implementation: str
    batch_tokens: int
    drift: float = 0.0
    forwards: int = 0
    state: dict[str, np.ndarray] = field(default_factory=dict)

    def over(
        self,
        prompts: PromptSet,
        base: str,
        progress: Callable[[int, int], None] | None,
        checkpoint: str | Path | None,
    ) -> Sweep:
        info, device = self.scope.info, self.scope.device
        longest = max((len(ids) for ids in prompts[base]), default=1) if base in prompts.column_names else 1
        most = max(1, self.batch_tokens // max(1, longest) // 8)
        parts = chunks(
            prompts,
            self.metrics,
            self.positions,
            base,
            context_length=info.context_length,
            most=most,
            device=device,
            least=2 if isinstance(self.alternative, OtherPrompts) else 1,
        )
        each = longest if self.positions == "each" else 0
        shape = (len(prompts), len(self.variants), *((each,) if each else ()))
        for metric in self.metrics:
            self.state[f"{metric.name}.baseline"] = np.full(len(prompts), np.nan)
            self.state[f"{metric.name}.values"] = np.full(shape, np.nan)
        self.state["drift"] = np.zeros(1)
        identity = (
            f"{info}{fingerprint(prompts)}{base}{self.variants}{[m.name for m in self.metrics]}{self.alternative}"
            f"{self.positions}{self.method}{self.freeze_heads}"
        )
        keeper = Checkpoint(checkpoint, identity)
        done, _ = keeper.restore({"sweep": self.state})
        try:
            self._all(parts, each, done, lambda: keeper.save({"sweep": self.state}, done, set(), last=False), progress)
        finally:
            keeper.save({"sweep": self.state}, done, set(), last=True)
        return Sweep(
            tuple(self.variants),
            {metric.name: self.state[f"{metric.name}.baseline"] for metric in self.metrics},
            {metric.name: self.state[f"{metric.name}.values"] for metric in self.metrics},
            {metric.name: metric.units for metric in self.metrics},
            self.alternative.name,
            float(self.state["drift"][0]),
            self.forwards,
        )

    def _all(
        self,
        parts: list[Chunk],
        each: int,
        done: set[int],
        keep: Callable[[], None],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        prompts = sum(chunk.size for chunk in parts)
        finished, total, number = 0, prompts * len(self.variants), 0
        for place, chunk in enumerate(parts):
            run = _ChunkRun(self, chunk, chunk.ids.shape[1] - chunk.targets.shape[1] + 1 if each else 0)
            todo = run.jobs(place)
            for count, job in enumerate(todo, 1):
                if number not in done:
                    try:
                        run.job(job)
                    except FAILURES as error:
                        self._explain(run, job, error)
                    done.add(number)
                    keep()
                number += 1
                if progress is not None:
                    progress(finished + chunk.size * len(self.variants) * count // len(todo), total)
            run.fill()
            finished += chunk.size * len(self.variants)
        if progress is not None:
            progress(total, total)

    def _explain(self, run: _ChunkRun, job: Job, error: Exception) -> None:
        """Find which variant failed, and say so; the others of its forward are measured one by one."""
        if isinstance(error, DeviceError | TaskError):
            raise error
        for index in job.variants:
            try:
                run.job(Job(job.chunk, (index,), first_block(self.variants[index]), job.first, job.position))
            except FAILURES as own:
                name = " + ".join(map(str, self.variants[index]))
                prompts = ", ".join(map(str, run.chunk.prompts))
                raise SweepError(
                    f"sweep at {name}, {'prompts' if run.chunk.size > 1 else 'prompt'} {prompts}",
                    found=f"{type(own).__name__}: {own}",
                    expected="a run of this variant",
                    fix="Leave it out, or mend its cause and repeat the sweep: what was done before is kept.",
                ) from own
        raise error


class _ChunkRun:
    """The jobs of one chunk, and what they share."""

    def __init__(self, run: _Run, chunk: Chunk, each: int) -> None:
        self.run, self.chunk, self.each = run, chunk, each
        self._base: Tensor | None = None
        self._tokens: tuple[int, ...] | None = None
        self._before: Beginning | None = None
        self._values: tuple[int, Values] | None = None
        self._streams: dict[tuple[int, int], Tensor] = {}

    def jobs(self, number: int) -> list[Job]:
        run, tokens = self.run, self.chunk.ids.shape[1]
        if run.method == "plain":
            places: list[int | None] = list(range(self.each)) if self.each else [None]
            return [Job(number, (index,), 0, 0, position) for position in places for index in range(len(run.variants))]
        rows = max(2 * self.chunk.size, run.batch_tokens // max(1, tokens - self._first()))
        return jobs(run.scope, number, self.chunk, run.variants, rows, run.alternative, self.each)

    def _first(self) -> int:
        return self.chunk.first if can_start_late(self.run.scope) and not self.each else 0

    def job(self, job: Job) -> None:
        """Run one job and write its values."""
        run, last = self.run, self.chunk.targets.shape[1]
        readout = self._readout()
        variants = [run.variants[index] for index in job.variants]
        values = self._bound(job.first)
        if job.position is None:
            where = self.chunk.where(job.first, self.chunk.ids.device)
        else:
            where = torch.zeros(self.chunk.ids.shape[1] - job.first, dtype=torch.bool, device=self.chunk.ids.device)
            where[job.position - job.first] = True
        if run.method == "plain":
            logits = plain_logits(
                run.scope, self.chunk, variants[0], values, last, where, run.implementation, run.freeze_heads
            )[None]
            logits = logits if self._tokens is None else logits[..., list(self._tokens)]
            scored = [metric(logits, readout) for metric in run.metrics]
        else:
            start = Start(job.first, job.block, self._earlier(job.first), self._stream(job.first, job.block))
            growing = Growing(
                run.scope,
                self.chunk,
                variants,
                values,
                start,
                positions=where,
                tokens=self._tokens,
                implementation=run.implementation,
                freeze_heads=run.freeze_heads,
                keep_streams=range(1, run.scope.info.n_layers),
            )
            logits = growing.logits(last)
            for block, stream in growing.streams.items():
                self._streams.setdefault((job.first, block), stream)
            scored = [metric(logits, readout) for metric in run.metrics]
            self._check(scored)
            scored = [values_[1:] for values_ in scored]
        run.forwards += 1
        for metric, found in zip(run.metrics, scored, strict=True):
            array = found.double().cpu().numpy().T
            table = run.state[f"{metric.name}.values"]
            index = np.ix_(self.chunk.prompts, job.variants)
            if job.position is None:
                table[index] = array
            else:
                table[:, :, job.position][index] = array

    def _check(self, scored: Sequence[Tensor]) -> None:
        for metric, found in zip(self.run.metrics, scored, strict=True):
            known = self.run.state[f"{metric.name}.baseline"][list(self.chunk.prompts)]
            drift = float(np.abs(found[0].double().cpu().numpy() - known).max())
            self.run.state["drift"][0] = max(self.run.state["drift"][0], drift)

    def fill(self) -> None:
        """Give variants that cannot change anything the baseline."""
        self._readout()
        for metric in self.run.metrics:
            table = self.run.state[f"{metric.name}.values"]
            baseline = self.run.state[f"{metric.name}.baseline"]
            for prompt in self.chunk.prompts:
                row = table[prompt, :, : self.each] if self.each else table[prompt]
                row[np.isnan(row)] = baseline[prompt]

    def _readout(self) -> Readout:
        run, last = self.run, self.chunk.targets.shape[1]
        if self._base is None:
            wanted = [metric.tokens(self.chunk.rows) for metric in run.metrics]
            few = [part for part in wanted if part is not None]
            some = tuple(sorted({token for part in few for token in part})) if len(few) == len(wanted) else None
            self._tokens = some
            growing = Growing(
                run.scope,
                self.chunk,
                [],
                Zero(),
                Start(self._first(), before=self._earlier(self._first())),
                tokens=some,
                implementation=run.implementation,
                keep_streams=range(1, run.scope.info.n_layers),
            )
            self._base = growing.logits(last)[0]
            for block, stream in growing.streams.items():
                self._streams[self._first(), block] = stream
            run.forwards += 1
            readout = Readout(self.chunk.rows, self.chunk.targets, some, self._base)
            for metric in run.metrics:
                found = metric(self._base[None], readout)[0].double().cpu().numpy()
                run.state[f"{metric.name}.baseline"][list(self.chunk.prompts)] = found
        return Readout(self.chunk.rows, self.chunk.targets, self._tokens, self._base)

    def _earlier(self, first: int) -> Beginning | None:
        """Return the keys and values before a token, computed once for the chunk."""
        if not first:
            return None
        if self._before is None or self._before.tokens < first:
            tokens = self.chunk.ids.shape[1] - 1 if self.each else first
            self._before = beginning(self.run.scope, self.chunk, max(tokens, first), self.run.implementation)
            self.run.forwards += 1
        return self._before.first(first)

    def _bound(self, first: int) -> Values:
        """Return other values from a token on; a run of others is kept from the earliest on and cut."""
        if self._values is None or self._values[0] > first:
            units = sorted({unit for variant in self.run.variants for unit in variant})
            alternative, implementation = self.run.alternative, self.run.implementation
            self._values = first, alternative.bind(self.run.scope, self.chunk, units, first, implementation)
        start, values = self._values
        return values.later(first - start) if isinstance(values, Recorded) and first > start else values

    def _stream(self, first: int, block: int) -> Tensor | None:
        """Return the unedited input of a block from a token on."""
        if not block:
            return None
        known = [start for start, kept in self._streams if kept == block and start <= first]
        start = max(known)
        return self._streams[start, block][:, first - start :]
