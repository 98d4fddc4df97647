"""Prove that a backend's tap sits where it should: used by the tests and the doctor."""

from __future__ import annotations

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ..core.batch import Batch
from ..core.errors import TapError
from ._base import Scope


def verify(scope: Scope, *, batch: Batch | None = None, tolerance: float | None = None) -> None:
    """Check that an identity tap leaves the logits unchanged and that the tap's z is what the projection reads.

    Costs two forwards a layer. The second check ablates one head a layer at the tap and by
    zeroing its columns of W_O; both must give the same logits.

    Args:
        scope: a loaded model.
        batch: the prompts; None means one of twelve random tokens.
        tolerance: largest difference of logits relative to their largest size; None means 1e-4 in float32 or
            float64, 5e-2 in lower precision.

    Raises:
        TapError: a check fails; the message names it and the size of the difference.
        UnsupportedModelError: the output projection cannot be found.

    Example:
        >>> from attnscope.models.toy import Toy
        >>> verify(Toy())
    """
    if tolerance is None:
        tolerance = 1e-4 if scope.info.dtype in ("float32", "float64") else 5e-2
    batch = _tokens(scope, 12) if batch is None else batch
    with torch.no_grad():
        plain = scope.logits(batch)
        with scope.attach(identity):
            _close(scope, "an identity tap", scope.logits(batch), plain, tolerance)
        for layer in scope.info.attention_layers:
            head = layer % scope.info.n_heads
            with scope.attach(ablation(layer, head)):
                tapped = scope.logits(batch)
            weights = scope.output_projection(layer)[head]
            kept = weights.clone()
            try:
                weights.zero_()
                zeroed = scope.logits(batch)
            finally:
                weights.copy_(kept)
            _close(scope, f"ablating L{layer}H{head} at the tap instead of in W_O", tapped, zeroed, tolerance)
        _close(scope, "detaching", scope.logits(batch), plain, 0.0)


def identity(call: AttentionCall) -> Tensor:
    """Compute attention and change nothing."""
    z = attend(call).output
    if z is None:
        raise TapError(f"layer {call.layer}", found="no output", expected="z from the kernels")
    return z


def ablation(layer: int, head: int) -> _Ablation:
    """Return a tap that zeroes the z of one head."""
    return _Ablation(layer, head)


class _Ablation:
    def __init__(self, layer: int, head: int) -> None:
        self.layer, self.head = layer, head

    def __call__(self, call: AttentionCall) -> Tensor:
        z = identity(call)
        if call.layer == self.layer:
            z = z.clone()
            z[:, self.head] = 0
        return z


def _tokens(scope: Scope, n_tokens: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, scope.info.vocab_size, (1, n_tokens), generator=generator)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0,), 1)


def _close(scope: Scope, what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9)).item()
    if not difference <= tolerance:
        raise TapError(
            f"check of {scope.info.model_id}: {what}",
            found=f"logits that differ by {difference:.2g} of their size",
            expected=f"at most {tolerance:.2g}",
            fix="This model cannot be trusted to this backend; please report it.",
        )
