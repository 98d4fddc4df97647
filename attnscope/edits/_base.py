"""The one shape of an edit: it may change attention's call, the heads' outputs, and the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, HeadOutput, Result, Want, attend

from ..core.ids import HeadId

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..models._base import Site
    from ._tokens import Tokens

Attend = Callable[[AttentionCall, Want], Result]


@dataclass(frozen=True)
class Edit:
    """Base of every edit; a subclass's fields are its parameters. Edits compose in the order given."""

    name: ClassVar[str]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the edit acts on the residual stream; see `models._base.Site`."""
        return ()

    def bound(self, batch: Batch | None) -> Edit:
        """Return the edit for forwards of these prompts, or for your own calls of the model (None).

        Edits with a field `_prompts` get to know them there.
        """
        if not hasattr(self, "_prompts"):
            return self
        own = copy(self)
        object.__setattr__(own, "_prompts", None if batch is None else batch.prompts)
        return own

    def record(self) -> dict[str, Any]:
        """Return the edit as JSON data: its name and parameters, tensors by shape, dtype and SHA-256."""
        from ._plain import parameters

        return {"edit": self.name, **parameters(self)}

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return the residual stream `[B, T, M]` at one of its sites; `tokens` says what stands where, where known."""
        return x

    def call(self, call: AttentionCall) -> AttentionCall:
        """Return the call that attention is computed from."""
        return call

    def anew(self, call: AttentionCall) -> list[int]:
        """Return the query heads whose outputs `output` computes without reading them; attention may leave them out."""
        return []

    def output(self, call: AttentionCall, z: Tensor, attend: Attend = attend) -> Tensor:
        """Return the heads' outputs `[B, H, Tq, Dv]` that the output projection reads.

        Args:
            call: after all edits.
            z: after the edits before this one.
            attend: computes attention anew, by the kernels that the forward uses.
        """
        return z

    def check_after(self, earlier: Sequence[Edit]) -> None:
        """Refuse earlier edits that this one does not compose with.

        Raises:
            TaskError: one of them.
        """


def edit_heads(
    call: AttentionCall, heads: list[int], factor: float, patches: Tensor | None = None, kept: Tensor | None = None
) -> AttentionCall:
    """Return the call with some heads' outputs multiplied and patched, after the edits that it already has.

    Attention itself computes it: no copy of z is made, and a head that only stops may stay uncomputed.

    Args:
        call: of one layer.
        heads: its query heads.
        factor: on their outputs.
        patches: `[B or 1, len(heads), Tq or 1, Dv]` added to them, or None.
        kept: `[B or 1, len(heads), Tq or 1]` a further factor where there are patches, or None.
    """
    scale = torch.ones(call.q.shape[1], device=call.q.device)
    scale[heads] = factor
    edit = HeadOutput(scale) if patches is None else HeadOutput(scale, tuple(heads), patches, kept)
    return call.replace(head_output=edit if call.head_output is None else call.head_output.then(edit))


def edit_heads_at(
    call: AttentionCall, heads: list[int], factor: float, patches: Tensor | None, here: Tensor | None
) -> AttentionCall:
    """Return the call with some heads' outputs multiplied and patched at some queries; see `edit_heads`.

    Args:
        call: of one layer.
        heads: its query heads.
        factor: on their outputs.
        patches: `[B or 1, len(heads), Tq or 1, Dv]` added to them, or None.
        here: `[B, Tq]` bool, the queries; None means all.
    """
    if here is None:
        return edit_heads(call, heads, factor, patches)
    b, tq = here.shape
    kept = torch.where(here, factor, 1.0)[:, None].expand(b, len(heads), tq)
    if patches is None:
        patches = call.v.new_zeros(1, len(heads), 1, call.v.shape[3])
    else:
        patches = torch.where(here[:, None, :, None], patches, 0)
    return edit_heads(call, heads, 1.0, patches, kept)


def all_counted(call: AttentionCall) -> AttentionCall:
    """Return the call with every query counted, so that lse is missing only where a query sees no key."""
    b, _, tq, _ = call.q.shape
    return call.replace(query_valid=torch.ones(b, tq, dtype=torch.bool, device=call.q.device))


def finish_heads(call: AttentionCall, z: Tensor) -> Tensor:
    """Return an output that was computed without `head_output` as attention gives it: padded, scaled, patched.

    Args:
        call: of these heads.
        z: `[B, H, Tq, Dv]`, a tensor of its own.
    """
    padded, output = call.padded_queries, call.head_output
    if padded is not None:
        z = z.masked_fill(padded[:, None, :, None], 0)
    if output is None:
        return z
    z = z * output.scale.to(z)[:, None, None]
    if output.patches is not None:
        patched = list(output.patched)
        if output.kept is not None:
            z[:, patched] *= output.kept[..., None].to(z)
        z[:, patched] += output.patches.to(z)
    return z


def heads_of(heads: Iterable[HeadId], layer: int) -> list[int]:
    """Return the query heads of one layer."""
    return sorted(head.head for head in heads if head.layer == layer)
