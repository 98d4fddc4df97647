"""What every implementation derives from a call and a want in the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import AttentionCall, Want


def statistics_dtype(call: AttentionCall) -> torch.dtype:
    """Return the dtype of arithmetic and statistics: float64 for float64 inputs, else float32."""
    return torch.float64 if call.q.dtype == torch.float64 else torch.float32


def asks_statistics(want: Want) -> bool:
    """Whether anything is wanted that needs the attention weights, the output aside."""
    flags = (want.lse, want.entropy, want.max_prob, want.mean_distance, want.received, want.received_max)
    named = (want.mass_at, want.mass_in, want.top_keys)
    blocks = (want.mass_by_distance, want.pooled_map, want.pooled_max)
    return any(flags) or any(named) or any(value is not None for value in blocks)


def block_of(length: int, blocks: int, device: torch.device) -> Tensor:
    """Return `[length]` the block of each position, block r covering r·length//blocks .. (r+1)·length//blocks.

    Example:
        >>> block_of(5, 2, torch.device("cpu")).tolist()
        [0, 0, 1, 1, 1]
    """
    starts = torch.arange(1, blocks, device=device) * length // blocks
    return torch.bucketize(torch.arange(length, device=device), starts, right=True)


def group_count(groups: Tensor) -> int:
    """Return how many groups `[B, Tk]` names: the largest group number plus one, 0 where every key is -1."""
    return int(groups.max()) + 1


def one_hot(groups: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return `[..., count]`: 1 in the column of each entry's group, zeros for -1."""
    return (groups.unsqueeze(-1) == torch.arange(count, device=groups.device)).to(dtype)


def value_norm(call: AttentionCall) -> Tensor:
    """Return ‖v_j‖₂ `[B, G, Tk]`."""
    return torch.linalg.vector_norm(call.v, dim=-1, dtype=statistics_dtype(call))
