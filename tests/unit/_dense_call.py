"""One attention call as a collector sees it, and its dense matrix."""

from __future__ import annotations

import torch
from torch import Tensor

import attnscope
from attnscope.collectors._base import AttentionSeen, Collector
from attnscope.core.batch import Batch
from attnscope.core.model_info import ModelInfo
from attnscope.engine.folds import fold_now
from attnscope_kernels import AttentionCall, attend
from attnscope_kernels.impl.reference import attention_logits, attention_weights


def info_of(call: AttentionCall) -> ModelInfo:
    """A description of a model of one layer that makes this call."""
    _, h, _, d = call.q.shape
    return attnscope.load(backend="toy").info.model_copy(
        update={"n_layers": 1, "attention_layers": (0,), "n_heads": h, "n_kv_heads": call.k.shape[1], "head_dim": d}
        | {"causal": call.causal, "windows": (call.window,)}
    )


def batch_of(call: AttentionCall) -> Batch:
    """A prompt for every row of the call."""
    b, _, t, _ = call.q.shape
    valid = torch.ones(b, t, dtype=torch.bool) if call.key_valid is None else call.key_valid
    return Batch(torch.zeros(b, t, dtype=torch.long), valid, tuple(range(b)), b)


def seen_by(collector: Collector, call: AttentionCall, projection: Tensor | None = None) -> AttentionSeen:
    """What the collector gets of this call."""
    info, batch = info_of(call), batch_of(call)
    result = attend(call, collector.want(batch, info))
    return AttentionSeen(info, batch, 0, call, result, lambda: projection)  # type: ignore[arg-type,return-value]


def finalized(collector: Collector, *calls: AttentionCall, projection: Tensor | None = None):
    """The collector's statistics of these calls, each with prompts of its own."""
    info, sizes = info_of(calls[0]), [call.q.shape[0] for call in calls]
    state = collector.init(info, sum(sizes))
    first = 0
    for call, size in zip(calls, sizes, strict=True):
        seen = seen_by(collector, call, projection)
        batch = Batch(seen.batch.input_ids, seen.batch.valid, tuple(range(first, first + size)), sum(sizes))
        fold_now(collector, state, AttentionSeen(info, batch, 0, call, seen.result, seen.output_projection))
        first += size
    return collector.finalize(state, info)


def weights_of(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """A `[B, H, Tq, Tk]` and the sink logit's probability `[B, H, Tq]`, float64."""
    sink = call.sink_logits
    wide = call.replace(
        q=call.q.double(), k=call.k.double(), v=call.v.double(), sink_logits=None if sink is None else sink.double()
    )
    logits, visible = attention_logits(wide)
    weights, sink_mass, _ = attention_weights(wide, logits, visible)
    return weights, sink_mass
