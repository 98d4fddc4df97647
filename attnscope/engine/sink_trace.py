"""One pass that notes, at every position, what a sink would show: residual norm, direction, attention received."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import AttentionCall, Result, Want

from ..collectors._seen import AttentionSeen
from ..collectors.received_mass import seen_by_enough
from ..core import statistics
from ..core.errors import TaskError
from ..core.names import Variable
from .batches import PromptSet, check_prompts, fingerprint, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope, Site

ANCHORS = 3
"""The first positions, one of which is the primary sink (2512.22213)."""
SINK_HEAD = 0.3
"""A head gives a sink more than this a query (2410.10781), strict."""
LEAST_QUERIES = 64

NORM = Variable("residual_norm_at", ("prompt", "block", "position"), "1", "residual norm after the block")
COSINE = Variable(
    "anchor_cosine", ("prompt", "anchor", "block", "position"), "1", "cosine to an early position", "2512.22213"
)
SHARE = Variable(
    "received_share", ("prompt", "layer", "position"), "1", "attention received a query, mean over heads", "2410.10781"
)
HEADS = Variable("sink_heads_at", ("prompt", "position"), "1", "fraction of heads that give it > 0.3", "2410.10781")


def trace(
    scope: Scope,
    prompts: PromptSet,
    *,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return norms, cosines to the first positions, and received attention of every position of every prompt.

    Positions beyond a prompt's end are NaN; so is received attention where too few queries see the key.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        edits: interventions.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.

    Returns:
        xarray.Dataset: dims prompt P, block L, anchor 3, position T (the longest prompt's).

    Raises:
        TaskError: empty or too long prompts; or hidden states overflow the model's dtype.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 5]]})
        >>> trace(attnscope.load(backend="toy"), prompts).residual_norm_at.dims
        ('prompt', 'block', 'position')
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    info, count, longest = scope.info, len(prompts), max(lengths)
    norm = np.full((count, info.n_layers, longest), np.nan, dtype=np.float32)
    cosine = np.full((count, ANCHORS, info.n_layers, longest), np.nan, dtype=np.float32)
    share = np.full((count, len(info.attention_layers), longest), np.nan, dtype=np.float32)
    heads = np.zeros((count, longest), dtype=np.float32)
    ran: set[str] = set()
    done = 0
    for group in plan(lengths, batch_tokens):
        batch = make_batch(prompts, group, scope.device)
        valid = batch.valid.cpu().numpy()
        kept = slice(0, valid.shape[1])

        def residual(layer: int, _site: Site, x: Tensor, group=group, valid=valid, kept=kept) -> None:  # type: ignore[no-untyped-def]
            norms, cosines = (found.cpu().numpy() for found in _directions(x))
            if not np.isfinite(norms[valid]).all():
                raise _overflow(scope, layer)
            norm[group, layer, kept] = np.where(valid, norms, np.nan)
            for anchor in range(cosines.shape[1]):
                cosine[group, anchor, layer, kept] = np.where(valid, cosines[:, anchor], np.nan)

        def listen(call: AttentionCall, result: Result, group=group, batch=batch, kept=kept) -> None:  # type: ignore[no-untyped-def]
            row = info.rows[call.layer]
            seen = AttentionSeen(info, batch, row, call, result, partial(scope.output_projection, call.layer))
            enough = seen_by_enough(seen.queries_seeing, LEAST_QUERIES) & batch.valid.to(call.q.device)
            mean = seen.received_per_query.mean(1, dtype=torch.float32).where(enough, torch.nan)
            share[group, row, kept] = mean.cpu().numpy()
            given = ((seen.received_per_query > SINK_HEAD) & enough[:, None]).sum(1)
            heads[group, kept] += given.cpu().numpy()
            ran.add(result.implementation)

        with forward(
            scope,
            batch,
            edits,
            want=Want(received=True),
            implementation=implementation,
            listen=listen,
            residual=residual,
            sites=("block_output",),
        ):
            scope.run(batch)
        done += sum(lengths[i] for i in group)
        if progress is not None:
            progress(done, sum(lengths))
    fraction = heads / (len(info.attention_layers) * info.n_heads)
    for prompt, length in enumerate(lengths):
        fraction[prompt, length:] = np.nan
    return statistics.dataset(
        info,
        [(NORM, norm), (COSINE, cosine), (SHARE, share), (HEADS, fraction)],
        attrs={"implementation": ", ".join(sorted(ran)), "fingerprint": fingerprint(prompts)},
    )


def _directions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return norms `[B, T]` and cosines `[B, anchors, T]` to the first positions."""
    x = x.float()
    norms = torch.linalg.vector_norm(x, dim=-1)
    unit = x / norms.clamp_min(1e-30)[..., None]
    return norms, torch.einsum("bam,btm->bat", unit[:, :ANCHORS], unit)


def _overflow(scope: Scope, layer: int) -> TaskError:
    return TaskError(
        f"residual stream after block {layer} of {scope.info.model_id}",
        found=f"values that overflow {scope.info.dtype}",
        expected="finite hidden states",
        fix="Load the model with dtype bfloat16 or float32.",
    )
