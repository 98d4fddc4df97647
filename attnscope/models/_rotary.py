"""Which dimensions of a head RoPE turns together, proven by turning the model's own keys."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import UnsupportedModelError
from ._inputs import body_of, forward_options
from ._probe import _harmless_ids

if TYPE_CHECKING:
    from ._base import Scope

Pairs = Literal["rotate_half", "interleaved"]

SHIFTS = (0, 1, 2, 5, 11)
"""Positions by which the same tokens are moved."""
TOKENS = 4
ROUNDINGS = 16
"""A turned key may differ from the model's own by this many roundings of its largest entry; angles are made in float32
in a model of any dtype."""


@dataclass(frozen=True)
class Rotary:
    """The rotary embedding of one model.

    A chunk is two dimensions of a head, so that the partial logits of D / 2 chunks sum to q·k. The first `dims`
    dimensions turn in pairs: (i, i + dims / 2) where `pairs` is `rotate_half`, (2i, 2i + 1) where it is `interleaved`.
    Dimensions that never turn (partial rotary) follow as chunks of their own, paired half with half; their pairing
    changes nothing that RoPE does, and their frequency is 0.

    Attributes:
        pairs: how the turning dimensions pair.
        dims: how many of a head's dimensions turn, the first ones.
        head_dim: D.
        frequencies: layer → radians a token of each of its D / 2 chunks; a layer without RoPE is absent.

    Example:
        >>> Rotary("rotate_half", 4, 8, {0: (1.0, 0.01, 0.0, 0.0)}).order
        (0, 1, 4, 5, 2, 3, 6, 7)
    """

    pairs: Pairs
    dims: int
    head_dim: int
    frequencies: dict[int, tuple[float, ...]]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The head's dimensions in an order in which chunk c is made of entries c and c + D / 2."""
        turning, rest = range(self.dims), range(self.dims, self.head_dim)
        half = self.dims // 2
        first, second = (
            (turning[:half], turning[half:]) if self.pairs == "rotate_half" else (turning[::2], turning[1::2])
        )
        middle = len(rest) // 2
        return (*first, *rest[:middle], *second, *rest[middle:])


def adjacent_order(head_dim: int) -> tuple[int, ...]:
    """Return the order that pairs (2i, 2i + 1) in any model, as the released code of FASA does.

    Example:
        >>> adjacent_order(6)
        (0, 2, 4, 1, 3, 5)
    """
    return (*range(0, head_dim, 2), *range(1, head_dim, 2))


def find_rotary(scope: Scope) -> Rotary:
    """Return a model's rotary embedding.

    The same tokens run at positions moved by a few tokens, in one forward whose attention adds nothing. The keys at
    one place must then be the others turned by the model's own frequencies (its `inv_freq` buffers, so scaled ones
    where YaRN or Llama 3 scale them), in exactly one way of pairing.

    Raises:
        UnsupportedModelError: the model has no RoPE, or another one; the message says which.

    Example:
        >>> import attnscope
        >>> rotary = find_rotary(attnscope.load(device="cpu"))
        >>> rotary.pairs, rotary.dims, [round(f, 3) for f in rotary.frequencies[0][:2]]
        ('rotate_half', 64, [1.0, 0.698])
    """
    info, model = scope.info, scope.model
    if info.head_dim % 2:
        raise _refused(scope, f"heads of {info.head_dim} dimensions", "an even number of dimensions a head")
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(text, "kv_lora_rank", None):
        raise _refused(
            scope, "latent attention (MLA): RoPE turns a part of each key that all heads share", "RoPE on whole heads"
        )
    known = _frequencies(model)
    keys = _moved_keys(scope)
    fits: dict[int, tuple[Pairs, tuple[float, ...]]] = {}
    coarsest = max(torch.finfo(dtype).eps for dtype in (getattr(torch, info.dtype), torch.float32))
    allowed = ROUNDINGS * coarsest
    for layer, moved in keys.items():
        if _error(moved, None) <= allowed:
            continue
        errors = [(_error(moved, angles, way), way, angles) for angles in known for way in _ways(angles)]
        found = [one for one in errors if one[0] <= allowed]
        if len({pairs for _, pairs, _ in found}) != 1:
            raise _unknown(scope, layer, bool(known))
        _, way, angles = min(found, key=lambda one: one[0])
        fits[layer] = (way, tuple(angles.tolist()))
    if not fits:
        raise _refused(scope, "keys that do not depend on their position (no RoPE; a bias on distance, or nothing)")
    ways = {(pairs, len(angles)) for pairs, angles in fits.values()}
    if len(ways) != 1:
        raise _refused(scope, f"layers that turn in different ways: {sorted(ways)}", "one way in all layers")
    pairs, turning = ways.pop()
    still = (0.0,) * (info.head_dim // 2 - turning)
    return Rotary(pairs, 2 * turning, info.head_dim, {layer: angles + still for layer, (_, angles) in fits.items()})


def _ways(angles: Tensor) -> tuple[Pairs, ...]:
    """Return the ways to pair that can be told apart: a single pair is the same in both."""
    return ("rotate_half", "interleaved") if len(angles) > 1 else ("rotate_half",)


def _frequencies(model: Any) -> list[Tensor]:
    """Return every distinct set of rotary frequencies among the model's buffers, float64."""
    found: list[Tensor] = []
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq") and buffer.dim() == 1:
            angles = buffer.detach().cpu().double()
            if not any(angles.shape == one.shape and torch.equal(angles, one) for one in found):
                found.append(angles)
    return found


@torch.no_grad()
def _moved_keys(scope: Scope) -> dict[int, Tensor]:
    """Return layer → keys `[shifts, G, tokens, D]` of the same tokens at moved positions."""
    body = body_of(scope.model) if hasattr(scope.model, "base_model") else scope.model
    if "position_ids" not in inspect.signature(body.forward).parameters:
        raise _refused(scope, "a forward without position_ids: positions enter some other way")
    keys: dict[int, Tensor] = {}

    def tap(call: AttentionCall) -> Tensor:
        keys[call.layer] = call.k.detach().cpu().double()
        return call.v.new_zeros(*call.q.shape[:3], call.v.shape[3])

    ids = _harmless_ids(scope.model, TOKENS).expand(len(SHIFTS), -1)
    positions = torch.arange(TOKENS, device=ids.device) + torch.tensor(SHIFTS, device=ids.device)[:, None]
    with scope.attach(tap):
        body(input_ids=ids, position_ids=positions, **forward_options(body))
    return keys


def _error(keys: Tensor, angles: Tensor | None, pairs: Pairs = "rotate_half") -> float:
    """Return the largest difference between turned and real keys, over the largest key; infinity where none fits."""
    size = float(keys.abs().max())
    if angles is None:
        return float((keys - keys[:1]).abs().max()) / size
    dims = 2 * len(angles)
    if dims > keys.shape[-1] or (keys.shape[-1] - dims) % 2:
        return float("inf")
    first, second = _split(keys[..., :dims], pairs)
    turn = torch.tensor(SHIFTS, dtype=torch.float64)[:, None, None, None] * angles
    cos, sin = turn.cos(), turn.sin()
    a, b = first[:1], second[:1]
    still = keys[..., dims:] - keys[:1, ..., dims:]
    off = torch.cat([a * cos - b * sin - first, b * cos + a * sin - second, still], -1)
    return float(off.abs().max()) / size


def _split(x: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    if pairs == "interleaved":
        return x[..., ::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _unknown(scope: Scope, layer: int, rotary: bool) -> UnsupportedModelError:
    if not rotary:
        return _refused(scope, "no rotary frequencies: learned or added positions, which change whole vectors")
    return _refused(
        scope,
        f"keys of layer {layer} that do not turn by the model's frequencies in pairs of dimensions",
        "pairs (i, i + d/2) or (2i, 2i + 1)",
    )


def _refused(scope: Scope, found: str, expected: str = "rotary position embeddings") -> UnsupportedModelError:
    return UnsupportedModelError(
        f"frequency chunks of {scope.info.model_id} ({scope.info.architecture})",
        found=found,
        expected=expected,
        fix="Frequency chunks are pairs of dimensions that RoPE turns, so this model has none to measure.",
    )
