"""Triton kernels: every reduction exact at any length, in memory that grows with the length and not with its square.

The forward is a library's (cuDNN or FlashAttention) where it covers the call, because its lse then comes free; our own
flash kernel otherwise, with the row statistics in the same pass. One more pass over the tiles gives column sums, and
row statistics where the forward could not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, Want
from ..errors import ContractError, ImplementationUnavailableError
from . import _sdpa
from ._output import finish
from ._screen import screened
from ._shapes import asks_statistics, value_norm
from ._triton import _fused
from ._triton._memory import named
from ._triton._operands import Operands, check_covered, operands_of, uncovered
from ._triton._sampled import Sampled
from ._triton._tiles import INTERPRETED
from ._triton.distances import mass_by_distance, plan_of
from ._triton.forward import forward
from ._triton.gather import mass_at
from ._triton.groups import mass_in
from ._triton.maps import pooled
from ._triton.rows import top_keys
from ._triton.weights import weights

__all__ = ["attend", "uncovered"]

ROW = ("entropy", "max_prob", "mean_distance")


def attend(call: AttentionCall, want: Want) -> Result:
    """Compute what is wanted.

    Raises:
        ImplementationUnavailableError: a dtype, head dim, device or number of knockouts that the kernels do not cover.
        ContractError: gradients are needed through a call that only our own kernel covers, which has no backward.
        KernelMemoryError: the GPU's memory ran out; the message says which tensor, and which context would fit.
    """
    check_covered(call)
    if not call.q.is_cuda and not INTERPRETED:
        raise ImplementationUnavailableError(
            f"implementation 'triton' for layer {call.layer}",
            found=f"tensors on {call.q.device}",
            expected="a CUDA device",
            fix="Ask for implementation='tiled', which runs everywhere, or 'auto'.",
        )
    if want.screen is not None:
        return screened(call, want, Sampled(attend))
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v))
    z = None
    if want.output and differentiable:
        if not _sdpa.covers(call):
            raise ContractError(
                f"attention call of layer {call.layer}",
                found="gradients through a masked, capped, windowed, biased or misaligned call",
                expected="no gradients",
                fix="Use torch.no_grad(), detach q, k and v, or ask for implementation='reference'.",
            )
        z = finish(call, _sdpa.output(call), padding=False)
        if not asks_statistics(want):
            return Result("triton", ("sdpa",), output=z, value_norm=value_norm(call) if want.value_norm else None)
        want = replace(want, output=False)
    with torch.no_grad():
        result = _attend(call, want)
    return result if z is None else replace(result, output=z)


def _attend(call: AttentionCall, want: Want) -> Result:
    if not asks_statistics(want) and _sdpa.covers(call):
        with named("the output", call):
            z = finish(call, _sdpa.output(call), padding=False) if want.output else None
        norms = value_norm(call) if want.value_norm else None
        return Result("triton", ("sdpa",) if want.output else (), output=z, value_norm=norms)
    with named("its masks", call):
        operands = operands_of(call)
    run = _Run(call, want, operands)
    run.first_pass()
    run.second_pass()
    run.chosen_pairs()
    return Result("triton", tuple(run.kernels), **run.found)


class _Run:
    """One call on its way through the kernels."""

    def __init__(self, call: AttentionCall, want: Want, operands: Operands) -> None:
        self.call, self.want, self.operands = call, want, operands
        self.kernels: list[str] = []
        self.found: dict[str, Any] = {}
        if want.value_norm:
            self.found["value_norm"] = value_norm(call)
        self.distances = None if want.mass_by_distance is None else plan_of(operands, want.mass_by_distance)
        self.bands = None if self.distances is None else self.distances.bands
        self.columns = want.received or want.received_max or self.bands is not None
        later = (want.mass_at, want.mass_in, want.top_keys, want.mass_by_distance, want.pooled_map, want.pooled_max)
        self.needs_norm = self.columns or any(later)
        self.norm: Tensor | None = None

    def first_pass(self) -> None:
        """Give z, lse and what the row statistics of the forward are."""
        call, want = self.call, self.want
        rows = [name for name in ROW if getattr(want, name)]
        library = _fused.choose(call) if want.output else None
        if library is not None:
            with named("the output and lse", call):
                z, lse = _fused.run(call, library)
                self.kernels.append(library)
                self.found["output"] = finish(call, z, padding=False)
                if want.lse:
                    self.found["lse"] = lse.masked_fill(~call.valid_queries[:, None], torch.nan)
                if self.needs_norm or rows:
                    self.norm = _fused.norm_of(call, lse)
            together = self.columns and not want.mean_distance
            if not rows or together:
                return  # the second pass gives entropy and the largest weight as well
        asked = replace(want, output=want.output and library is None, lse=want.lse and library is None)
        with named("the output and row statistics", call):
            done = forward(self.operands, asked, norm=self.needs_norm and self.norm is None)
        self.kernels.append("forward" if asked.output else "rows")
        self.found |= done.rows
        if done.z is not None:
            self.found["output"] = finish(call, done.z, padding=False, scaled=True)
        self.norm = done.norm if self.norm is None else self.norm

    def second_pass(self) -> None:
        """Give column sums, bands of distances, and row statistics that are still missing."""
        want = self.want
        entropy = want.entropy and "entropy" not in self.found
        max_prob = want.max_prob and "max_prob" not in self.found
        totals = None
        if self.columns or entropy or max_prob:
            assert self.norm is not None
            with named("scratch of the weight pass", self.call):
                done = weights(
                    self.operands,
                    self.norm,
                    received=want.received,
                    received_max=want.received_max,
                    bands=self.bands,
                    entropy=entropy,
                    max_prob=max_prob,
                )
            self.kernels.append("weights")
            for name in ("received", "received_max", "entropy", "max_prob"):
                if getattr(done, name) is not None:
                    self.found[name] = getattr(done, name)
            totals = done.bands
        if self.distances is not None:
            assert self.norm is not None
            with named("bands of distances", self.call):
                self.found["mass_by_distance"] = mass_by_distance(self.operands, self.norm, self.distances, totals)
            self.kernels.append("bands")

    def chosen_pairs(self) -> None:
        """Give masses at and in chosen keys, top keys and maps."""
        call, want, operands, norm = self.call, self.want, self.operands, self.norm
        if norm is None:
            return
        for name, index in want.mass_at.items():
            with named(f"masses {name!r}", call):
                self._keep("mass_at", name, mass_at(operands, norm, index))
        for name, groups in want.mass_in.items():
            with named(f"masses of groups {name!r}", call):
                self._keep("mass_in", name, mass_in(operands, norm, groups))
        for name, top in want.top_keys.items():
            with named(f"top keys {name!r}", call):
                self._keep("top_keys", name, top_keys(operands, norm, top))
        for name in ("pooled_map", "pooled_max"):
            shape = getattr(want, name)
            if shape is not None:
                with named(name, call):
                    self.found[name] = pooled(operands, norm, shape, maximum=name == "pooled_max")
                self.kernels.append(name)

    def _keep(self, kind: str, name: str, value: object) -> None:
        self.found.setdefault(kind, {})[name] = value
        if kind not in self.kernels:
            self.kernels.append(kind)
