"""W_Uᵀ X over the vocabulary, where row t of X is token t as a layer reads it: `[M, M]`, never `[V, V]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UnsupportedModelError
from ..models._base import Site
from ..models._parts import Parts
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

ROWS = 16384  # of the embeddings at a time


def embedding_product(embedding: Tensor, unembedding: Tensor) -> Tensor:
    """Return W_Uᵀ W_E summed over the vocabulary, `[M, M]` float32."""
    product = torch.zeros(unembedding.shape[1], embedding.shape[1], device=embedding.device)
    size = min(len(embedding), len(unembedding))
    for start in range(0, size, ROWS):
        chosen = slice(start, min(start + ROWS, size))
        product += unembedding[chosen].to(product).T @ embedding[chosen].to(product)
    return product


def read_products(scope: Scope, unembedding: Tensor, batch_tokens: int) -> dict[int, Tensor]:
    """Return, for each attention layer, W_Uᵀ (X − mean over tokens), `[M, M]` float32 each.

    Row t of X is what the attention norm gives (the block's input where there is no norm) at token t, right after the
    BOS token, or alone where the model has none. One forward of one or two tokens for each token of the vocabulary.
    """
    parts: Parts | None = getattr(scope, "parts", None)
    norms = [] if parts is None else [parts.blocks[layer].attention_norm for layer in scope.info.attention_layers]
    if any(norm is None for norm in norms) and any(norm is not None for norm in norms):
        raise UnsupportedModelError(
            f"copying score of {scope.info.model_id}",
            found="norms before the attention of some blocks only",
            expected="of all or of none",
        )
    site: Site = "attention_norm_output" if norms and norms[0] is not None else "block_input"
    prefix = [] if scope.info.bos_token_id is None else [scope.info.bos_token_id]
    size, width = min(scope.info.vocab_size, len(unembedding)), scope.info.d_model
    products = {layer: torch.zeros(width, width) for layer in scope.info.attention_layers}
    totals = {layer: torch.zeros(width) for layer in products}
    rows = max(1, batch_tokens // (len(prefix) + 1))
    for start in range(0, size, rows):
        tokens = torch.arange(start, min(start + rows, size))
        ids = torch.cat([torch.tensor(prefix, dtype=torch.long).expand(len(tokens), -1), tokens[:, None]], 1)
        readers = unembedding[tokens.to(unembedding.device)].float()

        def add(layer: int, _: Site, x: Tensor, readers: Tensor = readers) -> None:
            if layer not in products:
                return
            read = x[:, -1].float()
            products[layer] = products[layer].to(read) + readers.to(read).T @ read
            totals[layer] = totals[layer].to(read) + read.sum(0)

        batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), tuple(tokens.tolist()), size)
        with forward(scope, batch, residual=add, sites=(site,)):
            scope.run(batch)
    mean_reader = unembedding[:size].float().sum(0)
    return {
        layer: product - torch.outer(mean_reader.to(product), totals[layer] / size)
        for layer, product in products.items()
    }
