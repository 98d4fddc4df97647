"""What a sweep measures on the tokens that predict an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import TaskError, UnknownNameError

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Readout:
    """What a metric knows of B prompts of one length, beside logits.

    Attributes:
        rows: the prompts' columns.
        targets: `[B, A]` the tokens that the last A positions are to predict.
        tokens: the vocabulary columns of the logits; None means all of them.
        base: `[B, A, C]` logits without edits.
    """

    rows: Sequence[Row]
    targets: Tensor
    tokens: tuple[int, ...] | None
    base: Tensor

    def column(self, token: int) -> int:
        """Return where a token's logit stands."""
        return token if self.tokens is None else self.tokens.index(token)


class Metric(ABC):
    """A number for each prompt, from the logits of the positions that predict its answer.

    Attributes:
        name: of the metric.
        units: of its values.
        needs: columns of the prompt set.
        whole_answer: whether all answer tokens are read (given one by one), or only the first one's prediction.
    """

    name: ClassVar[str]
    units: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("answer_ids",)
    whole_answer: ClassVar[bool] = True

    def targets(self, row: Row) -> list[int]:
        """Return the tokens that are to be predicted; all but the last follow the prompt."""
        answer = list(row["answer_ids"])
        return answer if self.whole_answer else answer[:1]

    def forced(self, row: Row, ids: Sequence[int]) -> list[int]:
        """Return the tokens that the model reads: the prompt, and the answer's but the last."""
        return [*ids, *self.targets(row)[:-1]]

    def tokens(self, rows: Sequence[Row]) -> tuple[int, ...] | None:
        """Return the tokens whose logits are needed; None means all."""
        return None

    @abstractmethod
    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return `[V, B]` from logits `[V, B, A, C]` of V variants."""


class LogitDifference(Metric):
    """Logit of the answer's first token minus that of the wrong answer's (2211.00593)."""

    name = "logit_difference"
    units = "logit"
    needs = ("answer_ids", "wrong_ids")
    whole_answer = False

    def tokens(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """Return first tokens alone."""
        return tuple(sorted({token for row in rows for token in (row["answer_ids"][0], row["wrong_ids"][0])}))

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return the difference."""
        first = wide(logits[:, :, 0])
        right = _columns([readout.column(row["answer_ids"][0]) for row in readout.rows], first)
        wrong = _columns([readout.column(row["wrong_ids"][0]) for row in readout.rows], first)
        return first.gather(2, right)[..., 0] - first.gather(2, wrong)[..., 0]


class ProbabilityDifference(Metric):
    """Probability of all right tokens minus that of all wrong ones (greater-than, 2305.00586)."""

    name = "probability_difference"
    units = "1"
    needs = ("answer_ids", "answer_set", "wrong_set")
    whole_answer = False

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return the difference."""
        probability = wide(logits[:, :, 0]).softmax(-1)
        sign = torch.zeros_like(probability[0])
        for prompt, row in enumerate(readout.rows):
            sign[prompt, list(row["answer_set"])] = 1.0
            sign[prompt, list(row["wrong_set"])] = -1.0
        return (probability * sign).sum(-1)


class LogProbability(Metric):
    """Log-probability of the whole answer, its tokens given one by one."""

    name = "log_probability"
    units = "nat"

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return the sum over answer tokens."""
        index = readout.targets.to(logits.device)[None, ..., None].expand(len(logits), -1, -1, 1)
        return (wide(logits).gather(3, index)[..., 0] - wide(logits).logsumexp(-1)).sum(-1)


class Accuracy(Metric):
    """1 where every answer token is the most likely one, else 0: what greedy decoding would answer."""

    name = "accuracy"
    units = "1"

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return right or wrong."""
        return (logits.argmax(-1) == readout.targets.to(logits.device)).all(-1).float()


class KLDivergence(Metric):
    """KL(without edits ‖ with edits) of the next token, mean over the answer's tokens."""

    name = "kl"
    units = "nat"

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return the divergence, 0 without edits."""
        base, edited = wide(readout.base).log_softmax(-1), wide(logits).log_softmax(-1)
        return (base.exp() * (base - edited)).sum(-1).mean(-1)


class Loss(Metric):
    """Mean next-token loss over a prompt."""

    name = "loss"
    units = "nat"
    needs = ()

    def targets(self, row: Row) -> list[int]:
        """Return every token after the first."""
        return list(row["input_ids"][1:])

    def forced(self, row: Row, ids: Sequence[int]) -> list[int]:
        """Return the prompt without its last token."""
        if len(ids) < 2:
            raise TaskError("prompt of a loss", found=f"{len(ids)} tokens", expected="at least two")
        return list(ids[:-1])

    def __call__(self, logits: Tensor, readout: Readout) -> Tensor:
        """Return the mean."""
        index = readout.targets.to(logits.device)[None, ..., None].expand(len(logits), -1, -1, 1)
        return (wide(logits).logsumexp(-1) - wide(logits).gather(3, index)[..., 0]).mean(-1)


METRICS: dict[str, type[Metric]] = {
    kind.name: kind for kind in (LogitDifference, ProbabilityDifference, LogProbability, Accuracy, KLDivergence, Loss)
}


def metrics_named(metrics: str | Metric | Sequence[str | Metric]) -> list[Metric]:
    """Return metrics that one forward can serve.

    Raises:
        UnknownNameError: no metric has this name.
        TaskError: none, or metrics of a whole text beside metrics of an answer.
    """
    several = [metrics] if isinstance(metrics, str | Metric) else list(metrics)
    found = [metric_named(metric) for metric in several]
    kinds = {"answer_ids" in metric.needs for metric in found}
    if len(kinds) != 1 or len({metric.name for metric in found}) != len(found):
        raise TaskError(
            "metrics of a sweep",
            found=", ".join(metric.name for metric in found) or "none",
            expected="different metrics, all of answers or all of whole texts",
        )
    return found


def metric_named(metric: str | Metric) -> Metric:
    """Return a metric by its name; one of your own is given back.

    Raises:
        UnknownNameError: no metric has this name.

    Example:
        >>> metric_named("accuracy").units
        '1'
    """
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise UnknownNameError(f"metric {metric!r}", expected=f"one of {', '.join(METRICS)}")
    return METRICS[metric]()


def wide(x: Tensor) -> Tensor:
    """Return a tensor in float32, or in the wider type that it has."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _columns(columns: list[int], logits: Tensor) -> Tensor:
    return torch.tensor(columns, device=logits.device)[None, :, None].expand(len(logits), -1, 1)
