"""Recall and reasoning prompts of the same lengths, so that length explains nothing that differs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import TaskError
from . import _world as world
from ._pairs import pair_set
from .reasoning_pairs import ReasoningPairs
from .recall_pairs import RecallPairs

if TYPE_CHECKING:
    from datasets import Dataset

Mode = Literal["statements", "same_tokens"]


def matched(
    tokenizer: Any, recall: RecallPairs, reasoning: ReasoningPairs, *, mode: Mode = "statements"
) -> tuple[Dataset, Dataset]:
    """Return recall and reasoning pairs in which pair i of both has the same number of tokens.

    Args:
        tokenizer: of the model.
        recall: without a length.
        reasoning: of as many pairs and the same source.
        mode: `statements` fills the recall prompts to the length of the puzzles with other true statements in front,
            as statements stand in front of a puzzle's question. `same_tokens` puts puzzle i in front of fact i for
            recall, and fact i in front of puzzle i for reasoning, with EOS (or a new line) between: the two clean
            prompts hold the same tokens, and differ in what is asked last. No puzzle holds an answer of its fact.

    Raises:
        TaskError: the two do not go together, an unknown mode, or statements cannot fill a recall prompt to its length.

    Example:
        >>> import attnscope
        >>> tokenizer = attnscope.load(device="cpu").tokenizer
        >>> facts, puzzles = matched(tokenizer, RecallPairs(n=3), ReasoningPairs(n=3))
        >>> [len(ids) for ids in facts["input_ids"]] == [len(ids) for ids in puzzles["input_ids"]]
        True
    """
    if mode not in ("statements", "same_tokens"):
        raise TaskError("matched mode", found=repr(mode), expected="'statements' or 'same_tokens'")
    if (recall.n, recall.source) != (reasoning.n, reasoning.source) or recall.length is not None:
        raise TaskError(
            "matched recall and reasoning",
            found=f"{recall} and {reasoning}",
            expected="the same n and source, and no length of recall",
        )
    puzzles = reasoning.rows(tokenizer)
    if mode == "statements":
        facts = recall.rows(tokenizer, [len(row["input_ids"]) for row in puzzles])
    else:
        alone = recall.rows(tokenizer, beside=[row["prompt"] for row in puzzles])
        facts = [_behind(tokenizer, *both) for both in zip(alone, puzzles, strict=True)]
        puzzles = [_behind(tokenizer, *both) for both in zip(puzzles, alone, strict=True)]
    return pair_set(recall.name, facts), pair_set(reasoning.name, puzzles)


def _behind(tokenizer: Any, row: dict[str, Any], front: dict[str, Any]) -> dict[str, Any]:
    """Return a pair with another's clean prompt in front of both its sides, its positions moved along."""
    eos, bos = tokenizer.eos_token_id, len(world.with_bos(tokenizer, []))
    gap = world.encode(tokenizer, "\n") if eos is None else [eos]
    text = front["prompt"] + ("\n" if eos is None else tokenizer.eos_token)
    before = [*front["input_ids"][bos:], *gap]
    moved = {key: value + len(before) for key, value in row.items() if key.endswith("_position")}
    if "changed_positions" in row:
        moved["changed_positions"] = [place + len(before) for place in row["changed_positions"]]
    ids = {side: world.with_bos(tokenizer, [*before, *row[side][bos:]]) for side in ("input_ids", "corrupt_ids")}
    return {**row, **moved, **ids, "prompt": text + row["prompt"], "corrupt": text + row["corrupt"]}
