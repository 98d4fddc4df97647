"""OV copying score: does a head raise the logit of the token that it reads? From the weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import xarray as xr
from torch import Tensor, nn

from ..core import statistics
from ..core.errors import UnknownNameError, UnsupportedModelError
from ..core.names import Variable
from ..models._parts import Parts, is_norm
from ._token_products import embedding_product, read_products
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


@torch.no_grad()
def copying_scores(
    scope: Scope, *, tokens: Literal["embedding", "read"] = "embedding", batch_tokens: int = 8192
) -> xr.Dataset:
    """Return Re(Σλ) / Σ|λ| over the eigenvalues λ of each head's token-to-token map W_U W_O W_V W_E.

    1: a token that the head attends to only gains logit; −1: it only loses (Elhage et al. 2021,
    transformer-circuits.pub/2021/framework). The V×V map has the nonzero eigenvalues of the D×D product
    W_O (W_Uᵀ W_E) W_V, which is what is formed, in float32, from one M×M product W_Uᵀ W_E; biases are left out.

    The weights of the norm before attention, of a norm between attention and the residual stream, and of the final norm
    are folded in as diagonals, and so is their centring (LayerNorm). This is exact up to each norm's division by the
    size of what it reads (and the gate after attention, where a model has one), which differs from token to token: the
    score says what the head does to tokens of equal size, read straight from their embedding (no block before it
    changed them) and written straight to the logits (no block after it reads them). Positive factors on the embedding
    or the logits cancel.

    In a trained model deep heads read what the blocks before them made of a token, and a head that copies may score low
    from the embedding. With `tokens="read"`, every row of W_E is replaced by what the head's layer reads (after its
    norm, its division included) at that token right after BOS, minus the mean over the vocabulary: what all tokens have
    in common copies nothing. This costs one forward of two tokens for each token of the vocabulary.

    Args:
        scope: a loaded model.
        tokens: what stands for a token: its "embedding" (the paper's score), or what the head's layer "read"s there.
        batch_tokens: of one forward, for "read".

    Returns:
        `copying` `[layer, head]`, range −1..1; NaN for a head whose map is zero up to float32 rounding, so that it
        moves no token's logit. Attributes: `prompts` and `prompt_set`, 0 and "weights" or the vocabulary's size and
        "single tokens"; `implementation`, "torch".

    Raises:
        UnsupportedModelError: the model is not causal, lacks an embedding or unembedding of the residual stream's
            width, or its values or outputs are not plain matrices.
        UnknownNameError: `tokens` is neither of the two.

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
    if tokens not in ("embedding", "read"):
        raise UnknownNameError(f"tokens {tokens!r}", expected="embedding or read")
    embedding, unembedding = scope.token_embeddings()
    if tokens == "read":
        products = read_products(scope, unembedding, batch_tokens)
    else:
        products = dict.fromkeys(scope.info.attention_layers, embedding_product(embedding, unembedding))
    parts: Parts | None = getattr(scope, "parts", None)
    group = torch.arange(scope.info.n_heads) // scope.info.group_size
    rows = []
    for layer in scope.info.attention_layers:
        product = products[layer]
        writes = scope.output_projection(layer).to(product)
        reads = scope.value_projection(layer).to(product)
        if parts is not None:
            block = parts.blocks[layer]
            after = block.attention if block.attention is not None and is_norm(block.attention) else None
            writes = _through(_through(writes, after), parts.final_norm)
            reads = _into(reads, block.attention_norm) if tokens == "embedding" else reads
        reads = reads[group.to(product.device)]
        values = torch.linalg.eigvals((writes @ product @ reads).cpu())
        total = values.abs().sum(-1)
        moves = total > torch.finfo(torch.float32).eps * (_norm(writes) * product.norm() * _norm(reads)).cpu()
        rows.append((values.real.sum(-1) / total).where(moves, torch.nan))
    attrs: dict[str, Any] = {"prompts": 0, "prompt_set": "weights", "implementation": "torch"}
    if tokens == "read":
        attrs |= {"prompts": min(scope.info.vocab_size, len(unembedding)), "prompt_set": "single tokens"}
    return statistics.dataset(scope.info, [(COPYING, torch.stack(rows).numpy())], attrs=attrs)


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
