"""Patching: a head's output becomes what it was in another run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from attnscope_kernels import AttentionCall

from ..core.errors import UnknownHeadError
from ..core.ids import HeadId
from ._base import Edit, edit_heads_at, heads_of
from ._positions import queries_at, query_positions
from ._recording import Recording
from ._tokens import Positions, check_positions

if TYPE_CHECKING:
    from ..core.batch import Batch


@dataclass(frozen=True)
class PatchHead(Edit):
    """Put the outputs z that some query heads had in another run in place of their own (2202.05262, 2309.16042).

    Denoising runs corrupt prompts with a source of clean ones, noising the other way. Prompt i of the batch gets prompt
    i of the source, and a position gets the same position, both counted from a prompt's first token, so that padding,
    batching and a key/value cache change nothing. A source of one prompt serves every row, such as means by position.

    Positions that the source does not hold keep their own z: tokens generated beyond it, for example.

    Attributes:
        heads: query heads.
        source: z of at least these heads.
        positions: in every prompt, or prompt → positions; None means all that the source holds.

    Raises:
        UnknownHeadError: no head is named, or the source lacks one.
        TaskError: the source is not of z; positions below 0; in use, the prompts are not known or were not recorded.

    Example:
        >>> import torch
        >>> source = Recording("z", {0: torch.zeros(1, 2, 1, 4)}, torch.tensor([[0, 1]]), (HeadId(0, 3),))
        >>> PatchHead((HeadId(0, 3),), source, positions=(1,)).positions
        (1,)
    """

    name: ClassVar[str] = "patch_head"
    heads: tuple[HeadId, ...]
    source: Recording = field(hash=False)
    positions: Positions = field(default=None, hash=False)
    _prompts: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _sources: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.heads:
            raise UnknownHeadError(self._what, found="no heads", expected="at least one")
        self.source.check(self._what, [head.layer for head in self.heads], self.heads, "z")
        check_positions(self._what, self.positions)

    @property
    def _what(self) -> str:
        return f"{self.name.replace('_', ' ')} of {', '.join(map(str, self.heads[:4]))}"

    def bound(self, batch: Batch | None) -> PatchHead:
        """Return the edit that knows which prompts run."""
        own = super().bound(batch)
        assert isinstance(own, PatchHead)
        object.__setattr__(own, "_sources", None if batch is None else self._drawn(batch))
        return own

    def _drawn(self, batch: Batch) -> tuple[int, ...] | None:
        """Return the source's prompt for each prompt of the batch; None where it is the same."""
        return None

    def call(self, call: AttentionCall) -> AttentionCall:
        """Give the recorded z in place of the chosen heads' own."""
        heads = heads_of(self.heads, call.layer)
        if not heads:
            return call
        b, _, tq, _ = call.q.shape
        positions = query_positions(call).expand(b, tq)
        sources = self.source.rows(self._what, self._sources or self._prompts, b)
        values, known = self.source.at(call.layer, sources, positions)
        here = queries_at(self._what, call, self.positions, self._prompts)
        known = known if here is None else known & here
        recorded = heads_of(self.source.heads, call.layer)
        patches = values[:, :, [recorded.index(head) for head in heads]].transpose(1, 2).to(call.v)
        return edit_heads_at(call, heads, 0.0, patches, known)
