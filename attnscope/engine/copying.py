"""OV copying score: does a head raise the logit of the token that it reads? From the weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import xarray as xr
from torch import Tensor, nn

from ..core import statistics
from ..core.errors import UnsupportedModelError
from ..core.names import Variable
from ..models._parts import Parts, is_norm
from .norms import measure

if TYPE_CHECKING:
    from ..models._base import Scope

COPYING = Variable(
    "copying",
    ("layer", "head"),
    "1",
    "sum of the eigenvalues of W_U W_O W_V W_E over the sum of their sizes",
    "transformer-circuits.pub/2021/framework",
)
ROWS = 16384  # of the embeddings at a time


@torch.no_grad()
def copying_scores(scope: Scope) -> xr.Dataset:
    """Return Re(Σλ) / Σ|λ| over the eigenvalues λ of each head's token-to-token map W_U W_O W_V W_E.

    1: a token that the head attends to only gains logit; −1: it only loses (Elhage et al. 2021,
    transformer-circuits.pub/2021/framework). The V×V map has the nonzero eigenvalues of the D×D product
    W_O (W_Uᵀ W_E) W_V, which is what is formed, in float32, from one M×M product W_Uᵀ W_E; biases are left out.

    The weights of the norm before attention, of a norm between attention and the residual stream, and of the final norm
    are folded in as diagonals, and so is their centring (LayerNorm). This is exact up to each norm's division by the
    size of what it reads (and the gate after attention, where a model has one), which differs from token to token: the
    score says what the head does to tokens of equal size, read straight from their embedding (no block before it
    changed them) and written straight to the logits (no block after it reads them). In a trained model deep heads read
    what the blocks before them made of a token, and a head that copies there may score low here. Positive factors on
    the embedding or the logits cancel.

    Args:
        scope: a loaded model.

    Returns:
        `copying` `[layer, head]`, range −1..1; NaN for a head whose map is zero up to float32 rounding, so that it
        moves no token's logit. Attributes: `prompts` (0: no prompt was run), `prompt_set` ("weights"),
        `implementation` ("torch").

    Raises:
        UnsupportedModelError: the model is not causal, lacks an embedding or unembedding of the residual stream's
            width, or its values or outputs are not plain matrices.

    Example:
        >>> import attnscope
        >>> scores = copying_scores(attnscope.load(backend="toy")).copying
        >>> scores.shape, bool((abs(scores) <= 1).all())
        ((2, 4), True)
    """
    if not scope.info.causal:
        raise UnsupportedModelError(
            f"copying score of {scope.info.model_id}",
            found="a model that is not causal",
            expected="a decoder whose final norm is followed by its vocabulary projection",
        )
    tokens = _token_product(*scope.token_embeddings())
    parts: Parts | None = getattr(scope, "parts", None)
    group = torch.arange(scope.info.n_heads) // scope.info.group_size
    rows = []
    for layer in scope.info.attention_layers:
        writes = scope.output_projection(layer).to(tokens)
        reads = scope.value_projection(layer).to(tokens)
        if parts is not None:
            block = parts.blocks[layer]
            after = block.attention if block.attention is not None and is_norm(block.attention) else None
            writes = _through(_through(writes, after), parts.final_norm)
            reads = _into(reads, block.attention_norm)
        products = writes @ tokens @ reads[group.to(tokens.device)]
        values = torch.linalg.eigvals(products.cpu())
        total = values.abs().sum(-1)
        sizes = _norm(writes) * tokens.norm() * _norm(reads)[group.to(tokens.device)]
        moves = total > torch.finfo(torch.float32).eps * sizes.cpu()
        rows.append((values.real.sum(-1) / total).where(moves, torch.nan))
    attrs = {"prompts": 0, "prompt_set": "weights", "implementation": "torch"}
    return statistics.dataset(scope.info, [(COPYING, torch.stack(rows).numpy())], attrs=attrs)


def _token_product(embedding: Tensor, unembedding: Tensor) -> Tensor:
    """Return W_Uᵀ W_E summed over the vocabulary, `[M, M]` float32."""
    product = torch.zeros(unembedding.shape[1], embedding.shape[1], device=embedding.device)
    for start in range(0, min(len(embedding), len(unembedding)), ROWS):
        chosen = slice(start, min(start + ROWS, len(embedding), len(unembedding)))
        product += unembedding[chosen].to(product).T @ embedding[chosen].to(product)
    return product


def _norm(matrices: Tensor) -> Tensor:
    """Return the Frobenius norm of each matrix."""
    return torch.linalg.matrix_norm(matrices)


def _through(writes: Tensor, norm: nn.Module | None) -> Tensor:
    """Return `[H, Dv, M]` writes after a norm, but for its division: centred if it centres, times its weight."""
    if norm is None:
        return writes
    weight, _, centred = measure(norm, writes.shape[-1])
    return (writes - writes.mean(-1, keepdim=True) if centred else writes) * weight.to(writes)


def _into(reads: Tensor, norm: nn.Module | None) -> Tensor:
    """Return `[G, M, Dv]` reads of the residual stream in place of reads of the norm's output, but for its division."""
    if norm is None:
        return reads
    weight, _, centred = measure(norm, reads.shape[1])
    reads = weight.to(reads)[:, None] * reads
    return reads - reads.mean(1, keepdim=True) if centred else reads
