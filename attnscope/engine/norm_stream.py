"""Run prompts and hand the residual stream at some sites to whoever reads it, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UnsupportedModelError
from ..models._base import Site
from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The real tokens of one batch, and which of them statistics count."""

    batch: Batch

    @cached_property
    def counted(self) -> Tensor:
        """`[N]` indices into the flattened batch of every real token but each prompt's first."""
        keep = self.batch.valid.clone()
        keep[torch.arange(len(keep), device=keep.device), self.batch.starts] = False
        return keep.flatten().nonzero()[:, 0]

    @cached_property
    def real(self) -> Tensor:
        """`[N]` indices into the flattened batch of every real token."""
        return self.batch.valid.flatten().nonzero()[:, 0]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(prompt, position in it) of every counted token."""
        length = self.batch.input_ids.shape[1]
        rows, columns = self.counted.div(length, rounding_mode="floor"), self.counted % length
        positions = columns - self.batch.starts[rows]
        return [(self.batch.prompts[row], at) for row, at in zip(rows.tolist(), positions.tolist(), strict=True)]

    def of(self, x: Tensor) -> Tensor:
        """Return the counted tokens of `[B, T, M]` as `[N, M]`, at least float32."""
        chosen = x.flatten(0, 1)[self.counted.to(x.device)]
        return chosen if chosen.dtype == torch.float64 else chosen.float()


See = Callable[[Tokens, int, Site, Tensor], None]


def stream(
    scope: Scope,
    prompts: PromptSet,
    sites: Sequence[Site],
    see: See,
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
) -> None:
    """Call `see(tokens, layer, site, x)` at every site of every batch.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: the model lacks a site, or its hidden states overflow.
        DeviceError: the device ran out of memory.

    Example:
        >>> stream(scope, prompts, ("block_output",), lambda tokens, layer, site, x: print(layer))  # doctest: +SKIP
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    done = 0
    for group in plan(lengths, batch_tokens):
        tokens = Tokens(make_batch(prompts, group, scope.device))
        finite: list[tuple[int, Site, Tensor]] = []

        def tap(
            layer: int,
            site: Site,
            x: Tensor,
            tokens: Tokens = tokens,
            finite: list[tuple[int, Site, Tensor]] = finite,
        ) -> None:
            finite.append((layer, site, x.flatten(0, 1)[tokens.real.to(x.device)].isfinite().all()))
            see(tokens, layer, site, x)

        with forward(scope, tokens.batch, implementation=implementation, residual=tap, sites=sites):
            scope.run(tokens.batch)
        _check_finite(finite, scope.info.dtype)
        done += sum(lengths[i] for i in group)
        if progress is not None:
            progress(done, sum(lengths))


def _check_finite(finite: Sequence[tuple[int, Site, Tensor]], dtype: str) -> None:
    for layer, site, whole in finite:
        if not bool(whole):
            raise UnsupportedModelError(
                f"{site.replace('_', ' ')} of layer {layer}",
                found=f"hidden states that overflow {'fp16' if dtype == 'float16' else dtype}",
                expected="finite numbers",
                fix="Load the model with --dtype bfloat16: use bfloat16 or float32 for it.",
            )
