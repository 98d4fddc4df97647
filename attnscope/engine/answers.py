"""Are answers right, and how likely are they, under many edits of the same prompts?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..core.errors import TaskError
from .batches import PromptSet, check_prompts, fingerprint
from .checkpoint import Checkpoint
from .prefix import Prefix

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope

Prefill = Literal["dense", "edited"]
"""Which tokens edits act on: those from the question on (`dense`), or all of them (`edited`)."""

Treatments = Callable[[int], Sequence[Sequence["Edit"]]]
"""Prompt index → the edits of every treatment of this prompt; the same number of treatments for every prompt."""


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """What became of each answer.

    Attributes:
        right: `[prompts, treatments]` float, 1 where every answer token is the model's most likely one, else 0.
        log_probability: `[prompts, treatments]` of the whole answer, nats.
    """

    right: np.ndarray
    log_probability: np.ndarray


def answer_scores(
    scope: Scope,
    prompts: PromptSet,
    treatments: Treatments,
    *,
    prefill: Prefill = "dense",
    implementation: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> AnswerScores:
    """Score every answer under every treatment, the answer's tokens given one by one (teacher forcing).

    All tokens of an answer are most likely exactly where greedy decoding gives this answer. With a dense prefill, what
    comes before the question is computed once, and its cache serves all treatments.

    Args:
        scope: a loaded transformers model.
        prompts: with columns `input_ids` (without the answer), `answer_ids` and `question_position`, as `needle` has.
        treatments: see `Treatments`.
        prefill: `dense` or `edited`.
        implementation: kernel implementation.
        progress: called after every prompt with prompts done and prompts in all.
        checkpoint: a file to go on from after an interruption.

    Raises:
        TaskError: empty or too long prompts, a column is missing, or an unknown prefill.
        UnsupportedModelError: the model takes no key/value cache.
        OutputError: the checkpoint belongs to other prompts or treatments.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict(
        ...     {"input_ids": [[0, 5, 7]], "answer_ids": [[9]], "question_position": [2]})
        >>> answer_scores(attnscope.load(device="cpu"), prompts, lambda prompt: [[]]).right.shape
        (1, 1)
    """
    if prefill not in ("dense", "edited"):
        raise TaskError("prefill", found=repr(prefill), expected="'dense' or 'edited'")
    _check(scope, prompts)
    chosen = [treatments(i) for i in range(len(prompts))]
    sizes = {len(each) for each in chosen}
    if len(sizes) != 1:
        raise TaskError("treatments of prompts", found=f"{sorted(sizes)} a prompt", expected="equally many for each")
    shape = (len(chosen), sizes.pop())
    state = {name: np.full(shape, np.nan) for name in ("right", "log_probability")}
    keeper = Checkpoint(checkpoint, f"{scope.info}{fingerprint(prompts)}{prompts['answer_ids']}{prefill}{chosen}")
    done, _ = keeper.restore({"answers": state})
    for i, edits in enumerate(chosen):
        if i in done:
            continue
        row, shared = prompts[i], None
        ids, start, answer = row["input_ids"], row["question_position"], row["answer_ids"]
        for column, each in enumerate(edits):
            if prefill == "edited":
                shared = Prefix(scope, ids[:start], each, implementation)
            shared = shared or Prefix(scope, ids[:start])
            logits = shared.logits([*ids[start:], *answer[:-1]], each, implementation)[-len(answer) :]
            state["right"][i, column], state["log_probability"][i, column] = _score(logits, answer)
        done.add(i)
        keeper.save({"answers": state}, done, set(), last=len(done) == len(chosen))
        if progress is not None:
            progress(len(done), len(chosen))
    return AnswerScores(state["right"], state["log_probability"])


def _check(scope: Scope, prompts: PromptSet) -> None:
    check_prompts(prompts, scope.info.context_length)
    missing = sorted({"answer_ids", "question_position"} - set(prompts.column_names))
    if missing:
        raise TaskError(
            "prompt set with answers",
            found=f"no column {' and no column '.join(missing)}",
            expected="both",
            fix="Use the task 'needle', without with_answers.",
        )
    if not all(prompts["answer_ids"]):
        raise TaskError("prompt set with answers", found="an empty answer", expected="at least one answer token")


def _score(logits: torch.Tensor, answer: Sequence[int]) -> tuple[float, float]:
    target = torch.tensor(list(answer), device=logits.device)
    of_answer = logits.float().log_softmax(-1).gather(1, target[:, None])
    return float((logits.argmax(-1) == target).all()), float(of_answer.double().sum())
