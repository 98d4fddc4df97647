"""Which tokens a forward runs: the prompt of each row, and each token's position in its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import TaskError

if TYPE_CHECKING:
    from ..core.batch import Batch

Positions = tuple[int, ...] | Mapping[int, tuple[int, ...]] | None
"""Positions in every prompt, or prompt → positions in it; counted from 0 at a prompt's first token; None means all."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one forward.

    Attributes:
        positions: `[B, T]` of each token in its prompt, tokens of a key/value cache counted, -1 on padding; None where
            they are not known.
        prompts: the prompt of each row in its prompt set; None where it is not known.
    """

    positions: Tensor | None
    prompts: tuple[int, ...] | None = None

    @classmethod
    def of(cls, batch: Batch) -> Tokens:
        """Return the tokens of a whole batch, run at once.

        Example:
            >>> from attnscope.core.batch import Batch
            >>> valid = torch.tensor([[False, True, True]])
            >>> Tokens.of(Batch(valid.long(), valid, (0,), 1)).positions.tolist()
            [[-1, 0, 1]]
        """
        return cls(count(batch.valid), batch.prompts)


def count(valid: Tensor) -> Tensor:
    """Return the position of each real token in its row `[B, T]`, -1 on padding."""
    return (valid.long().cumsum(1) - 1).masked_fill(~valid.bool(), -1)


def check_positions(what: str, where: Positions) -> None:
    """Refuse positions below 0.

    Raises:
        TaskError: it names them.
    """
    every = where.values() if isinstance(where, Mapping) else () if where is None else (where,)
    wrong = sorted({position for each in every for position in each if position < 0})
    if wrong:
        raise TaskError(f"positions of {what}", found=wrong, expected="0 or more, counted from a prompt's first token")


def chosen(what: str, where: Positions, positions: Tensor | None, prompts: tuple[int, ...] | None) -> Tensor | None:
    """Return `[B, T]` bool, the tokens at some positions; None for all. Positions not reached are no error.

    Raises:
        TaskError: positions differ by prompt, and the prompts are not known; or the positions are not known.

    Example:
        >>> chosen("an edit", {7: (1,)}, torch.tensor([[-1, 0, 1], [0, 1, 2]]), (7, 8)).tolist()
        [[False, False, True], [False, False, False]]
    """
    if where is None:
        return None
    if positions is None:
        raise TaskError(
            what,
            found="positions, and a forward whose tokens' positions are not known",
            expected="positions=None, a padding mask of two dimensions, or a pass over a prompt set",
        )
    if not isinstance(where, Mapping):
        return torch.isin(positions, torch.tensor(where, dtype=torch.long, device=positions.device))
    rows = rows_of(what, prompts, len(positions))
    at = [torch.tensor(where.get(prompt, ()), dtype=torch.long, device=positions.device) for prompt in rows]
    return torch.stack([torch.isin(own, each) for own, each in zip(positions, at, strict=True)])


def rows_of(what: str, prompts: tuple[int, ...] | None, rows: int) -> tuple[int, ...]:
    """Return the prompt of each row.

    Raises:
        TaskError: they are not known, or their number is not that of the rows.
    """
    if prompts is None:
        raise TaskError(
            what,
            found="something of single prompts, and a forward whose prompts are not known",
            expected="a pass over a prompt set, or `edited` with its batch",
        )
    if len(prompts) != rows:
        raise TaskError(what, found=f"a forward of {rows} rows", expected=f"the {len(prompts)} prompts of the batch")
    return prompts


def written(x: Tensor, new: Tensor, mask: Tensor | None) -> Tensor:
    """Return x `[B, T, M]` with `new` at the tokens of `mask` `[B, T]`, or at all of them."""
    return new.to(x).expand_as(x) if mask is None else torch.where(mask[..., None].to(x.device), new.to(x), x)
