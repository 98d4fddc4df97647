"""Record what heads or the residual stream hold over a prompt set, to patch it into another run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import TaskError, UnknownHeadError
from ..core.ids import HeadId
from ..edits._base import Edit, heads_of
from ..edits._recording import Recording
from ..edits._tokens import Positions
from ._keep import Keep
from ._record_store import LIMIT, RecordStore
from .batches import PromptSet
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope, Site

What = Literal["z", "q", "k", "v"]


def record_heads(
    scope: Scope,
    prompts: PromptSet,
    heads: Sequence[HeadId],
    *,
    what: What = "z",
    positions: Positions = None,
    edits: Sequence[Edit] = (),
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str | None = None,
    limit: int = LIMIT,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Run prompts once and keep z (or q, k, v) of some query heads, for `PatchHead` and `ResampleHead`.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        heads: query heads.
        what: `z` after all edits; `q` and `k` are after rotary embedding, `k` and `v` those of the head's KV head.
        positions: in every prompt, or prompt → positions, counted from its first token; None means all.
        edits: that act in this run.
        dtype: of the recording; None keeps the model's.
        device: of the recording; None means the model's.
        limit: bytes that it may take.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes prompts done and prompts in all.

    Raises:
        TaskError: empty or too long prompts, or positions that a prompt does not have.
        UnknownHeadError: no heads, or the model has no such head.
        DeviceError: the recording would take more than `limit` bytes; or the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7], [3, 4, 1]]})
        >>> made = record_heads(attnscope.load(backend="toy"), prompts, [HeadId(1, 0), HeadId(1, 3)])
        >>> made.values[1].shape
        torch.Size([2, 3, 2, 8])
    """
    if what not in get_args(What):
        raise TaskError("recording of heads", found=repr(what), expected=", ".join(get_args(What)))
    chosen = tuple(sorted(set(heads)))
    unknown = [head for head in chosen if head not in scope.info.heads]
    if unknown or not chosen:
        raise UnknownHeadError("recording of heads", found=unknown or "no heads", expected="heads of the model")
    layers = {head.layer: heads_of(chosen, head.layer) for head in chosen}
    store = RecordStore(prompts, scope, positions, len(chosen), (dtype, device, limit))

    def listen(call: AttentionCall, z: Tensor) -> None:
        if call.layer in layers:
            own = layers[call.layer]
            kept = z if what == "z" else getattr(call, what)
            at = own if what in ("z", "q") else [head // call.group_size for head in own]
            store.put(call.layer, kept[:, at].transpose(1, 2), units=len(own))

    for batch in store.batches(batch_tokens, progress):
        with forward(scope, batch, [*edits, Keep(listen)], implementation=implementation):
            scope.run(batch)
    return Recording(what, store.values, store.slots, chosen)


def record_site(
    scope: Scope,
    prompts: PromptSet,
    site: Site,
    layers: Sequence[int],
    *,
    positions: Positions = None,
    edits: Sequence[Edit] = (),
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str | None = None,
    limit: int = LIMIT,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Run prompts once and keep what stands at one site of some layers, for `EditResidual`; see `record_heads`.

    Raises:
        TaskError: empty or too long prompts, no such layers, or positions that a prompt does not have.
        UnsupportedModelError: the model has no such site.
        DeviceError: the recording would take more than `limit` bytes; or the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]]})
        >>> made = record_site(attnscope.load(device="cpu"), prompts, "mlp_output", [0], positions=(2,))
        >>> made.what, made.positions.tolist()
        ('mlp_output', [[2]])
    """
    wrong = [layer for layer in layers if not 0 <= layer < scope.info.n_layers]
    if wrong or not layers:
        raise TaskError(
            f"recording of {site}", found=f"layers {wrong}", expected=f"some of 0..{scope.info.n_layers - 1}"
        )
    store = RecordStore(prompts, scope, positions, len(set(layers)), (dtype, device, limit))

    def residual(layer: int, _site: Site, x: Tensor) -> None:
        if layer in layers:
            store.put(layer, x, units=1)

    for batch in store.batches(batch_tokens, progress):
        with forward(scope, batch, edits, implementation=implementation, residual=residual, sites=(site,)):
            scope.run(batch)
    return Recording(site, store.values, store.slots)
