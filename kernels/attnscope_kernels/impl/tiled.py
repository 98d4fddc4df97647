"""Streaming attention in plain torch, on any device: one block of queries at a time, every reduction in one visit.

Extra memory is linear in T: two buffers of logits and weights under a fixed element budget (see `_plan`).
Statistics carry no gradients; z does where `_sdpa` covers the call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, Want
from ..errors import ContractError
from . import _sdpa
from ._logits import HIDDEN, Operands
from ._output import finish
from ._plan import Block, Part, blocks, parts, queries_per_block
from ._reduce import Sums
from ._screen import screened
from ._shapes import asks_statistics, statistics_dtype, value_norm
from ._tiled_screen import Streaming
from ._top_keys import top_keys


def attend(call: AttentionCall, want: Want) -> Result:
    """Compute what is wanted without a tensor that has two axes of length T.

    Raises:
        ContractError: gradients are needed through an output that only the streaming loop can compute.
    """
    if want.screen is not None:
        return screened(call, want, Streaming(attend))
    statistics = asks_statistics(want)
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v))
    z = None
    if want.output and (differentiable or not statistics):
        if _sdpa.covers(call):
            z = finish(call, _sdpa.output(call), padding=False)
        elif differentiable:
            raise ContractError(
                f"attention call of layer {call.layer}",
                found="gradients through a masked, capped, windowed, biased or misaligned call",
                expected="no gradients",
                fix="Use torch.no_grad(), detach q, k and v, or ask for implementation='reference'.",
            )
    with torch.no_grad():
        if not statistics and (z is not None or not want.output):
            return Result("tiled", output=z, value_norm=value_norm(call) if want.value_norm else None)
        return _stream(call, want, z)


def _stream(call: AttentionCall, want: Want, z: Tensor | None) -> Result:
    operands = Operands(call, statistics_dtype(call))
    chosen = {name: top_keys(operands, top) for name, top in want.top_keys.items()}
    sums = Sums(call, want)
    computed = None
    if want.output and z is None:
        computed = torch.empty(*call.q.shape[:3], call.v.shape[-1], dtype=call.q.dtype, device=call.q.device)
    size = queries_per_block(call)
    plan = list(blocks(call, size))
    width = max(block.high - block.low for block in plan)
    for part in parts(call, size, width):
        heads = (part.batch.stop - part.batch.start) * (part.heads.stop - part.heads.start)
        memory = torch.empty(2, heads * size * width, dtype=operands.dtype, device=call.q.device)
        for block in plan:
            _visit(operands, part, block, memory, sums, computed)
    if computed is not None:
        z = finish(call, computed)
    return sums.result(z, chosen)


def _visit(operands: Operands, part: Part, block: Block, memory: Tensor, sums: Sums, output: Tensor | None) -> None:
    """Compute the weights of one part and block and fold them into the sums and the output."""
    shape = (
        part.batch.stop - part.batch.start,
        part.heads.stop - part.heads.start,
        block.queries.stop - block.queries.start,
        block.high - block.low,
    )
    count = shape[0] * shape[1] * shape[2] * shape[3]
    logits, weights = memory[0, :count].view(shape), memory[1, :count].view(shape)
    operands.logits(part, block, out=logits)
    torch.softmax(logits, dim=-1, out=weights)
    lse, counts = _normalise(operands, part, block, logits, weights)
    if output is not None:
        output[part.batch, part.heads, block.queries] = operands.mix(part, block, weights)
    sums.fold(part, block, logits, weights, lse, counts)


def _normalise(operands: Operands, part: Part, block: Block, logits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return lse and counts `[b, h, queries]`; the weights give way to the sink logit, and to 0 in blind rows."""
    call = operands.call
    most = logits.amax(-1)
    lse = most - weights.amax(-1).log()
    counts = call.valid_queries[part.batch, None, block.queries].to(lse.dtype).expand_as(lse)
    factor = None
    if call.sink_logits is not None:
        sink = call.sink_logits.detach()[part.heads, None].to(lse.dtype)
        keys_lse, lse = lse, torch.logaddexp(lse, sink)
        factor = (keys_lse - lse).exp()
    if operands.rows_may_be_blind:
        sighted = (most > HIDDEN / 2).to(lse.dtype)
        counts = counts * sighted
        factor = sighted if factor is None else factor * sighted
    if factor is not None:
        weights.mul_(factor.unsqueeze(-1))
    return lse, counts
