"""Which variants run together, from which block and token on, and what a sweep will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .alternatives import OtherRun
from .units import Variant, first_block

if TYPE_CHECKING:
    from .chunks import Chunk


@dataclass(frozen=True)
class Job:
    """Variants of one chunk that share a forward.

    Attributes:
        chunk: its number.
        variants: their numbers in the sweep.
        block: the first block that runs.
        first: the first token that runs.
        position: the one token that they edit, or None for the chunk's own positions.
    """

    chunk: int
    variants: tuple[int, ...]
    block: int
    first: int
    position: int | None = None


def can_start_late(scope: Any) -> bool:
    """Return whether later tokens can run by themselves: every block mixes tokens by causal attention alone."""
    from .grow import takes

    info = scope.info
    return info.causal and len(info.attention_layers) == info.n_layers and takes(scope.model, "position_ids")


def groups(variants: Sequence[Variant], indices: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Return variants in groups of at most `most`, those of the same first block together as far as they fit.

    Example:
        >>> from .units import Unit
        >>> groups([(Unit("mlp", 1),), (Unit("mlp", 0),), (Unit("mlp", 2),)], [0, 1, 2], 2)
        [(1, 0), (2,)]
    """
    order = sorted(indices, key=lambda i: (first_block(variants[i]), i))
    return [tuple(order[start : start + most]) for start in range(0, len(order), most)]


def jobs(
    scope: Any,
    number: int,
    chunk: Chunk,
    variants: Sequence[Variant],
    rows: int,
    alternative: Any,
    each: int,
) -> list[Job]:
    """Return the jobs of a chunk.

    Args:
        scope: the model.
        number: of the chunk.
        chunk: B prompts.
        variants: of the sweep.
        rows: rows of a forward at most, for prompts of this length.
        alternative: what takes the units' place.
        each: the number of tokens that are edited one by one; 0 edits the chunk's positions at once.

    Variants that cannot change anything are left out, exactly: patches at tokens before the first that differs between
    the two runs, and edits of the last block at tokens that predict no answer and that nobody reads any more.
    """
    tokens, late = chunk.ids.shape[1], can_start_late(scope)
    answer = tokens - chunk.targets.shape[1]
    start = chunk.first if late else 0
    differ = _first_difference(alternative, chunk) if isinstance(alternative, OtherRun) and scope.info.causal else 0
    most = max(1, rows // chunk.size - 1)
    indices = range(len(variants))
    if not each:
        if differ > (chunk.positions[-1] if chunk.positions else tokens - 1):
            return []
        return [
            Job(
                number,
                part,
                first_block(variants[part[0]]),
                max(start, differ) if late and not chunk.positions else start,
            )
            for part in groups(variants, indices, most)
        ]
    found = []
    for position in range(differ, each):
        acting = [
            i for i in indices if not (late and position < answer and _only_in(variants[i], scope.info.n_layers - 1))
        ]
        first = position if late else 0
        wider = max(1, rows * tokens // ((tokens - first) * chunk.size) - 1)
        parts = groups(variants, acting, wider)
        found += [Job(number, part, first_block(variants[part[0]]), first, position) for part in parts]
    return found


def _only_in(variant: Variant, block: int) -> bool:
    """Return whether a variant edits one block alone, behind what other tokens read of it."""
    return all(unit.layer == block and unit.module != "residual" for unit in variant)


def _first_difference(alternative: OtherRun, chunk: Chunk) -> int:
    differs = (alternative.ids(chunk) != chunk.ids).any(0)
    return int(differs.int().argmax()) if bool(differs.any()) else chunk.ids.shape[1]
