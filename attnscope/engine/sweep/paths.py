"""Path patching: what a head does to others, or to the answer, along direct paths alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from attnscope_kernels import AttentionCall

from ...core.errors import TaskError
from ...core.ids import HeadId
from ..batches import PromptSet
from .alternatives import OtherRun, Zero
from .chunks import Positions, chunks
from .grow import Growing, Start
from .metrics import Metric, Readout, metric_named
from .shared import attend_after
from .units import Unit, check_units, units_of

if TYPE_CHECKING:
    from ...models._base import Scope

Slot = Literal["query", "key", "value"]
_FIELD: dict[Slot, str] = {"query": "q", "key": "k", "value": "v"}


@dataclass(frozen=True)
class Receiver:
    """What a path ends in: the queries, keys or values of a head.

    Keys and values are those of the head's KV head, as all heads of its group read them.

    Example:
        >>> Receiver(HeadId(9, 6), "query")
        Receiver(head=L9H6, slot='query')
    """

    head: HeadId
    slot: Slot


@dataclass(frozen=True, eq=False)
class Paths:
    """What path patching found.

    Attributes:
        senders: one for each column.
        baseline: `[prompts]` without a patch.
        values: `[prompts, senders]` with the path from each sender patched.
    """

    senders: tuple[Unit, ...]
    baseline: np.ndarray
    values: np.ndarray


def patch_paths(
    scope: Scope,
    prompts: PromptSet,
    receivers: Sequence[Receiver] = (),
    senders: Sequence[Unit] | None = None,
    *,
    metric: str | Metric = "logit_difference",
    column: str = "corrupt_ids",
    positions: Positions = "all",
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> Paths:
    """Patch each sender from another run, hold every head between at its unedited output, and read the receivers.

    First the sender alone is patched while all later heads keep their own output (equal to keeping their q, k and v),
    MLPs and norms being computed anew (2211.00593). What the receivers' queries, keys or values become in that run is
    then put into a run in which everything else is free. Without receivers the paths end in the logits.

    Two conventions of the literature are two choices of `positions`: `all` patches and holds every token (2211.00593);
    `answer` patches at the last token, so that only outputs there can differ and are held (2310.08744).

    Args:
        scope: a loaded transformers model.
        prompts: with `input_ids`, the other run's column and the metric's columns.
        receivers: where paths end; none means the logits.
        senders: units whose paths are patched; None means every head.
        metric: of the answer.
        column: the other run's tokens.
        positions: where the sender is patched; `each` is not offered.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.

    Raises:
        TaskError: a column is missing, or pairs of different lengths.
        UnknownHeadError: the model lacks a sender or receiver.

    Example:
        >>> import attnscope, datasets
        >>> pairs = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]], "corrupt_ids": [[0, 6, 7]],
        ...                                     "answer_ids": [[11]], "wrong_ids": [[12]]})
        >>> patch_paths(attnscope.load(device="cpu"), pairs, [Receiver(HeadId(6, 4), "query")]).values.shape
        (1, 64)
    """
    if positions == "each":
        raise TaskError("path patching", found="positions 'each'", expected="positions together")
    chosen, other = metric_named(metric), OtherRun(column)
    for receiver in receivers:
        scope.info.check(receiver.head)
    variants = check_units(scope, [(unit,) for unit in (senders or units_of(scope, "head"))])
    baseline = np.full(len(prompts), np.nan)
    values = np.full((len(prompts), len(variants)), np.nan)
    tokens = max(len(ids) for ids in prompts["input_ids"])
    rows = max(2, batch_tokens // tokens)
    parts = chunks(
        prompts,
        [chosen],
        positions,
        "input_ids",
        context_length=scope.info.context_length,
        most=max(1, rows // 8),
        device=scope.device,
    )
    for chunk in parts:
        bound = other.bind(scope, chunk, [unit for variant in variants for unit in variant], 0, implementation)
        size = max(1, rows // chunk.size - 1)
        for start in range(0, len(variants), size):
            group = variants[start : start + size]
            sent = _Sent(
                scope,
                chunk,
                group,
                bound,
                Start(),
                positions=chunk.where(0, chunk.ids.device),
                implementation=implementation,
                freeze_heads=True,
            )
            sent.receivers = list(receivers)
            logits = sent.logits(chunk.targets.shape[1])
            if receivers:
                logits = _Received(sent).logits(chunk.targets.shape[1])
            scored = chosen(logits, Readout(chunk.rows, chunk.targets, None, logits[0])).double().cpu().numpy()
            baseline[list(chunk.prompts)] = scored[0]
            values[np.ix_(chunk.prompts, range(start, start + len(group)))] = scored[1:].T
    return Paths(tuple(variant[0] for variant in variants), baseline, values)


class _Sent(Growing):
    """The first run: senders patched, later heads held; keeps what the receivers read."""

    receivers: Sequence[Receiver] = ()

    def _tap(self, call: AttentionCall) -> Tensor:
        if not hasattr(self, "read"):
            self.read: dict[tuple[int, Slot], Tensor] = {}
            self.at: dict[int, int] = {}
        for receiver in self.receivers:
            if receiver.head.layer == call.layer:
                self.read[call.layer, receiver.slot] = getattr(call, _FIELD[receiver.slot])
                self.at[call.layer] = self.present
        return super()._tap(call)


class _Received:
    """The second run: everything free but what the receivers read."""

    def __init__(self, sent: _Sent) -> None:
        self.sent, self.layers = sent, sorted(sent.at)
        variants = len(sent.rows)
        first = self.layers[0]
        # every variant joins at the first receiver's block; its own edit is what the receivers read
        self.growing = _Free(
            sent.scope,
            sent.chunk,
            [(Unit("head", first, 0),)] * variants,
            Zero(),
            Start(),
            implementation=sent.implementation,
        )
        self.growing.edits.clear()
        self.growing.sent = sent

    def logits(self, last: int) -> Tensor:
        return self.growing.logits(last)


class _Free(Growing):
    sent: Any = None

    def _tap(self, call: AttentionCall) -> Tensor:
        sent, b = self.sent, self.chunk.size
        changes: dict[str, Tensor] = {}
        for receiver in sent.receivers:
            if receiver.head.layer != call.layer:
                continue
            name = _FIELD[receiver.slot]
            head = receiver.head.head if receiver.slot == "query" else self.scope.info.kv_head(receiver.head.head)
            changed = changes.get(name, getattr(call, name)).clone()
            read, present = sent.read[call.layer, receiver.slot], sent.at[call.layer]
            grown = changed.view(self.present, b, *changed.shape[1:])
            theirs = read.view(present, b, *read.shape[1:])
            for index, row in enumerate(sent.rows):
                if row < present:  # a sender that has joined by then; others cannot reach this receiver
                    grown[self.rows[index], :, head] = theirs[row, :, head]
            changes[name] = changed
        return attend_after(call.replace(**changes), self.start.before, self.implementation)
