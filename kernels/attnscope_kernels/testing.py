"""Helpers for the laws that every implementation keeps: random calls, wants for everything, traps and comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .contract import AttentionCall, HeadOutput, Knockout, Result, TopKeys, Want

SLACK = 4.0
"""How many times the low-precision reference's own error an implementation may have."""
FLOOR = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}

FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 17},
    "window_one": {"window": 1},
    "softcap": {"softcap": 3.0},
    "sink": {"sink_logits": True},
    "left": {"padding": "left"},
    "right": {"padding": "right"},
    "knockouts": {"knockouts": 2},
    "blind": {"blind": True, "padding": "left"},
    "bidirectional": {"causal": False},
    "bidirectional_window": {"causal": False, "window": 9, "padding": "right"},
    "values": {"value_dim": 24},
    "holes": {"holes": True, "padding": "right"},
    "packed": {"segments": 5},
    "bias": {"bias": True},
    "scales": {"scales": True, "softcap": 4.0},
    "edited": {"edited": True, "padding": "right"},
    "all": {
        "window": 40,
        "softcap": 5.0,
        "sink_logits": True,
        "padding": "left",
        "knockouts": 1,
        "blind": True,
        "value_dim": 8,
        "holes": True,
        "segments": 3,
        "bias": True,
        "scales": True,
        "edited": True,
    },
}
"""What a call may have, by name: arguments of `random_call`. Every implementation keeps every law with each."""


def random_call(
    seed: int = 0,
    *,
    batch: int = 2,
    queries: int = 63,
    keys: int | None = None,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    sink_logits: bool = False,
    padding: str | None = None,
    knockouts: int = 0,
    blind: bool = False,
    q_offset: int | None = None,
    holes: bool = False,
    segments: int = 0,
    bias: bool = False,
    scales: bool = False,
    edited: bool = False,
) -> AttentionCall:
    """Return a seeded call with any combination of features; the values do not depend on the device.

    Args:
        seed: of every random draw.
        batch: prompts.
        queries: Tq.
        keys: Tk; None means Tq.
        heads: query heads.
        kv_heads: KV heads.
        head_dim: D.
        value_dim: Dv; None means D.
        dtype: of q, k and v.
        device: where the tensors live.
        causal: as in AttentionCall.
        window: as in AttentionCall.
        softcap: as in AttentionCall.
        sink_logits: whether every head has a sink logit.
        padding: `left` or `right`: prompt b has about b/(2·batch) of its keys padded; None means no padding.
        knockouts: how many random knockouts (each: half the heads, a quarter of the queries, a quarter of the keys).
        blind: whether one more knockout hides every key from some queries of half the heads.
        q_offset: as in AttentionCall.
        holes: whether single keys inside the prompts are invalid.
        segments: how many sequences are packed in each row; 0 means no packing.
        bias: whether half the heads have a bias on every key, -inf on some.
        scales: whether the heads' logits are scaled, one of them to nothing.
        edited: whether outputs are scaled, one head stopped and one patched.

    Example:
        >>> random_call(queries=5, padding="left").key_valid.sum(-1).tolist()
        [5, 4]
    """
    random = torch.Generator().manual_seed(seed)
    tk = queries if keys is None else keys

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    def chance(probability: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=random) < probability).to(device)

    q, k = 2 * normal(batch, heads, queries, head_dim), normal(batch, kv_heads, tk, head_dim)
    v = normal(batch, kv_heads, tk, head_dim if value_dim is None else value_dim)
    key_valid = None
    if padding is not None:
        padded = torch.arange(batch, device=device).unsqueeze(-1) * tk // (2 * batch)
        position = torch.arange(tk, device=device)
        key_valid = position >= padded if padding == "left" else position < tk - padded
    if holes:
        key_valid = (torch.ones(batch, tk) > 0).to(device) if key_valid is None else key_valid
        key_valid = key_valid & chance(0.9, batch, tk)
    packed = None
    if segments:
        cuts = torch.rand(batch, tk, generator=random) < segments / tk
        packed = cuts.long().cumsum(1).to(device)
    key_bias = None
    if bias:
        key_bias = torch.randn(batch, heads, tk, generator=random).to(device)
        key_bias[:, ::2] = 0
        key_bias.masked_fill_(chance(0.1, batch, heads, tk) & (key_bias != 0), -math.inf)
    output = None
    if edited:
        scale = (torch.arange(heads) % 3 / 2).to(device)
        patched = tuple(range(0, heads, 3))
        patches = torch.randn(1, len(patched), 1, v.shape[-1], generator=random).to(device)
        kept = (torch.rand(batch, len(patched), queries, generator=random) < 0.5).to(patches) * 2
        output = HeadOutput(scale, patched, patches, kept)
    removed = [
        Knockout(chance(0.5, heads), chance(0.25, batch, queries), chance(0.25, batch, tk)) for _ in range(knockouts)
    ]
    if blind:
        every_key = torch.ones(batch, tk, dtype=torch.bool, device=device)
        removed.append(Knockout(torch.arange(heads, device=device) % 2 == 0, chance(0.2, batch, queries), every_key))
    return AttentionCall(
        layer=0,
        q=q,
        k=k,
        v=v,
        scale=head_dim**-0.5,
        key_valid=key_valid,
        causal=causal,
        window=window,
        softcap=softcap,
        sink_logits=normal(heads) if sink_logits else None,
        q_offset=q_offset,
        knockouts=tuple(removed),
        segments=packed,
        key_bias=key_bias,
        logit_scale=(torch.arange(heads) / 2).to(device) if scales else None,
        head_output=output,
    )


def random_want(call: AttentionCall, seed: int = 0) -> Want:
    """Return a want that asks every reduction of `call`, with seeded indices that include -1 and invisible keys.

    Example:
        >>> sorted(random_want(random_call()).mass_at)
        ['first', 'several']
    """
    random = torch.Generator().manual_seed(seed)
    b, _, tq, _ = call.q.shape
    tk, device = call.k.shape[2], call.q.device

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=random).to(device)

    far = max(2, tk)
    return Want(
        output=True,
        lse=True,
        entropy=True,
        max_prob=True,
        mean_distance=True,
        received=True,
        received_max=True,
        value_norm=True,
        mass_at={"first": torch.zeros(b, tq, dtype=torch.long, device=device), "several": integers(-1, tk, b, tq, 3)},
        mass_in={"thirds": integers(-1, 3, b, tk), "one": torch.zeros(b, tk, dtype=torch.long, device=device)},
        top_keys={"some": TopKeys(integers(-1, tq, b, 5), 4)},
        mass_by_distance=tuple(sorted({0, 1, 2, far // 3, far})),
        pooled_map=(min(tq, 7), min(tk, 5)),
        pooled_max=(min(tq, 5), min(tk, 7)),
    )


class SquareTensorError(AssertionError):
    """An operation took or gave a tensor with two axes of the forbidden length."""


class forbid_square(TorchDispatchMode):  # noqa: N801 - reads as a statement: with forbid_square(251)
    """Fail on any tensor, taken or given by any operation, that has two axes of exactly `length`.

    Choose a prime length, so that no other axis has it by accident.

    Example:
        >>> with forbid_square(251):
        ...     _ = torch.ones(251) + 1
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and list(leaf.shape).count(self.length) >= 2:
                raise SquareTensorError(f"{func} handles {tuple(leaf.shape)}: two axes of length {self.length}")
        return result


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill every fresh uninitialised tensor with NaN (or the largest integer), so that unwritten entries show.

    Example:
        >>> with poisoned_memory():
        ...     bool(torch.empty(3).isnan().all())
        True
    """
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    switch: Any = torch.utils.deterministic  # type: ignore[attr-defined]
    fill = switch.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    switch.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        switch.fill_uninitialized_memory = fill


def compare(result: Result, reference: Result) -> dict[str, float]:
    """Return max |a − b| / (1 + |b|) of every field, by name (`mass_at.first`, `top_keys.some.weights`, …).

    A missing field, another shape or another pattern of NaN is infinite. Top keys must be the same wherever the
    weight stands clear of its neighbours by 0.1%.

    Example:
        >>> from attnscope_kernels import attend
        >>> call = random_call(); same = attend(call)
        >>> compare(same, same)
        {'output': 0.0}
    """
    errors: dict[str, float] = {}
    for spec in fields(Result):
        mine, theirs = getattr(result, spec.name), getattr(reference, spec.name)
        if spec.name in ("implementation", "kernels") or (mine is None and theirs is None):
            continue
        if isinstance(theirs, Mapping):
            for name in {**mine, **theirs}:
                if name not in mine or name not in theirs:
                    errors[f"{spec.name}.{name}"] = math.inf
                elif spec.name == "top_keys":
                    errors[f"top_keys.{name}.weights"] = _error(mine[name][0], theirs[name][0])
                    errors[f"top_keys.{name}.keys"] = _key_error(mine[name], theirs[name])
                else:
                    errors[f"{spec.name}.{name}"] = _error(mine[name], theirs[name])
        else:
            errors[spec.name] = math.inf if mine is None or theirs is None else _error(mine, theirs)
    return errors


def wide(call: AttentionCall) -> AttentionCall:
    """Return the same call in float64.

    Example:
        >>> wide(random_call()).q.dtype
        torch.float64
    """
    sink = call.sink_logits
    return call.replace(
        q=call.q.double(), k=call.k.double(), v=call.v.double(), sink_logits=None if sink is None else sink.double()
    )


def worse_than_reference(
    result: Result, call: AttentionCall, want: Want, floor: float = 0.0
) -> dict[str, tuple[float, float]]:
    """Return the fields whose error against float64 is above `SLACK` times that of the dense reference in q's dtype.

    Args:
        result: of an implementation.
        call: what it was computed from.
        want: what was wanted.
        floor: an error that is always allowed.

    Returns:
        dict: field → (error, what the reference has); empty where the law holds.

    Example:
        >>> from attnscope_kernels import attend
        >>> call = random_call()
        >>> want = random_want(call)
        >>> worse_than_reference(attend(call, want, "tiled"), call, want)
        {}
    """
    from .api import attend

    truth = attend(wide(call), want, "reference")
    allowed = compare(attend(call, want, "reference"), truth)
    found = compare(result, truth)
    least = max(floor, FLOOR[call.q.dtype])
    every = {name: (found.get(name, math.inf), allowed.get(name, 0.0)) for name in {**found, **allowed}}
    return {name: pair for name, pair in every.items() if not pair[0] <= SLACK * pair[1] + least}


def _error(mine: Tensor, theirs: Tensor) -> float:
    if mine.shape != theirs.shape:
        return math.inf
    a, b = mine.detach().double(), theirs.detach().double()
    if not torch.equal(a.isnan(), b.isnan()):
        return math.inf
    error = (a - b).abs() / (1 + b.abs())
    return float(error.nan_to_num(nan=0.0).max()) if error.numel() else 0.0


def _key_error(mine: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> float:
    weights, keys = theirs[0].double(), theirs[1]
    if mine[1].shape != keys.shape or not torch.equal(mine[1] < 0, keys < 0):
        return math.inf
    clear = weights[..., :-1] - weights[..., 1:].nan_to_num(nan=0.0) > 1e-3 * weights[..., :-1]
    alone = torch.nn.functional.pad(clear, (1, 0), value=True) & torch.nn.functional.pad(clear, (0, 1), value=False)
    return math.inf if bool(((mine[1] != keys) & alone).any()) else 0.0
