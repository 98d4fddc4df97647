"""The stretched and clipped Kumaraswamy variable that LycheeDecode's gates are drawn from (2602.04541, 1905.08160)."""

from __future__ import annotations

import torch
from torch import Tensor

LOW, HIGH = -0.1, 1.1
"""A draw is stretched to this interval and clipped to 0..1, so that 0 and 1 have probability."""
EDGE = 0.001
"""Uniform draws come from (EDGE, 1 - EDGE)."""
LEAST, MOST = 1e-6, 100.0
"""Bounds of a and b."""


def sample(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Return a draw z in 0..1 for each uniform draw, differentiable in a and b.

    Args:
        a: first shape parameter, positive.
        b: second one.
        u: uniform draws of the same shape, from `uniform`.

    Example:
        >>> one = torch.ones(3)
        >>> sample(one, one, torch.tensor([0.01, 0.5, 0.99]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    s = (1 - (1 - u) ** b.reciprocal()) ** a.reciprocal()
    return (LOW + (HIGH - LOW) * s).clamp(0, 1)


def kept(a: Tensor, b: Tensor) -> Tensor:
    """Return P(z ≠ 0) of each gate, differentiable: (1 − (1/12)^a)^b.

    Example:
        >>> kept(torch.ones(1), torch.ones(1))
        tensor([0.9167])
    """
    return (1 - (-LOW / (HIGH - LOW)) ** a) ** b


def uniform(shape: tuple[int, ...], seed: int, step: int) -> Tensor:
    """Return the uniform draws of one step, the same on every device and whatever ran before it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return EDGE + (1 - 2 * EDGE) * torch.rand(shape, generator=generator)
