"""Recall and reasoning prompts of the same lengths, so that length explains nothing that differs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import TaskError
from ._pairs import pair_set
from .reasoning_pairs import ReasoningPairs
from .recall_pairs import RecallPairs

if TYPE_CHECKING:
    from datasets import Dataset


def matched(tokenizer: Any, recall: RecallPairs, reasoning: ReasoningPairs) -> tuple[Dataset, Dataset]:
    """Return recall and reasoning pairs in which pair i of both has the same number of tokens.

    The recall prompts are filled to the length of the puzzles: other true statements of the same world stand in front
    of the fact that is asked, as statements stand in front of a puzzle's question.

    Args:
        tokenizer: of the model.
        recall: without a length.
        reasoning: of as many pairs and the same source.

    Raises:
        TaskError: the two do not go together, or statements cannot fill a recall prompt to its length.

    Example:
        >>> import attnscope
        >>> tokenizer = attnscope.load(device="cpu").tokenizer
        >>> facts, puzzles = matched(tokenizer, RecallPairs(n=3), ReasoningPairs(n=3))
        >>> [len(ids) for ids in facts["input_ids"]] == [len(ids) for ids in puzzles["input_ids"]]
        True
    """
    if (recall.n, recall.source) != (reasoning.n, reasoning.source) or recall.length is not None:
        raise TaskError(
            "matched recall and reasoning",
            found=f"{recall} and {reasoning}",
            expected="the same n and source, and no length",
        )
    puzzles = reasoning.rows(tokenizer)
    facts = recall.rows(tokenizer, [len(row["input_ids"]) for row in puzzles])
    return pair_set(recall.name, facts), pair_set(reasoning.name, puzzles)
