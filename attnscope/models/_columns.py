"""Logits of some tokens alone: the vocabulary projection computes only their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def some_tokens(model: Any, tokens: Sequence[int] | None) -> Iterator[bool]:
    """Let the model give logits `[.., len(tokens)]` while this is open.

    What a model does with logits afterwards (a cap, a factor) acts on each alike, so that these are the columns of the
    whole table. A projection that is not one plain matrix is left as it is.

    Yields:
        bool: whether the logits are those of `tokens` alone.
    """
    projection = model.get_output_embeddings()
    plain = type(projection) is nn.Linear and "forward" not in projection.__dict__ and not _hooked(projection)
    if tokens is None or not plain or projection.weight.device.type == "meta":
        yield False
        return
    chosen = torch.tensor(list(tokens), device=projection.weight.device)
    weight = projection.weight[chosen]
    bias = None if projection.bias is None else projection.bias[chosen]

    def forward(hidden: Tensor) -> Tensor:
        return functional.linear(hidden, weight, bias)

    projection.__dict__["forward"] = forward
    try:
        yield True
    finally:
        del projection.__dict__["forward"]


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
