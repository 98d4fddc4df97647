"""Parts of an AttentionCall: some query heads, a range of queries."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .call import AttentionCall, Knockout
from .errors import ContractError
from .head_output import HeadOutput


def select_queries(call: AttentionCall, first: int, last: int) -> AttentionCall:
    """Return the call of the queries first..last-1; keys stay whole."""
    if first >= last:
        raise ContractError("selection of queries", found=f"{first}..{last}", expected="at least one query")
    output = call.head_output
    if output is not None:
        output = replace(output, patches=_queries(output.patches, first, last), kept=_queries(output.kept, first, last))
    return call.replace(
        q=call.q[:, :, first:last],
        q_offset=call.offset + first,
        query_valid=call.valid_queries[:, first:last],
        knockouts=tuple(Knockout(x.heads, x.queries[:, first:last], x.keys) for x in call.knockouts),
        head_output=output,
    )


def select_heads(call: AttentionCall, heads: list[int]) -> AttentionCall:
    """Return the call of some query heads; K/V are views where whole groups or one group are asked for."""
    h, size = call.q.shape[1], call.group_size
    if not heads or any(not 0 <= head < h for head in heads):
        raise ContractError("selection of heads", found=heads, expected=f"some of the query heads 0..{h - 1}")
    groups = sorted({head // size for head in heads})
    whole = [head for group in groups for head in range(group * size, (group + 1) * size)]
    k, v = call.k, call.v
    if heads == whole:
        kv = slice(groups[0], groups[-1] + 1) if groups == list(range(groups[0], groups[-1] + 1)) else groups
        k, v = k[:, kv], v[:, kv]
    else:
        one = [head // size for head in heads]
        kv = slice(one[0], one[0] + 1) if len(one) == 1 else one
        k, v = k[:, kv], v[:, kv]
    q = slice(heads[0], heads[-1] + 1) if heads == list(range(heads[0], heads[-1] + 1)) else heads
    output = call.head_output
    if output is not None:
        kept = [head for head in heads if head in output.patched]
        at = [output.patched.index(head) for head in kept]
        output = HeadOutput(
            output.scale[heads],
            tuple(heads.index(head) for head in kept),
            output.patches[:, at] if output.patches is not None and kept else None,
            output.kept[:, at] if output.kept is not None and kept else None,
        )
    return call.replace(
        q=call.q[:, q],
        k=k,
        v=v,
        sink_logits=None if call.sink_logits is None else call.sink_logits[heads],
        key_bias=None if call.key_bias is None else call.key_bias[:, heads],
        logit_scale=None if call.logit_scale is None else call.logit_scale[heads],
        knockouts=tuple(Knockout(x.heads[heads], x.queries, x.keys) for x in call.knockouts),
        head_output=output,
    )


def _queries(values: Tensor | None, first: int, last: int) -> Tensor | None:
    return values if values is None or values.shape[2] == 1 else values[:, :, first:last]
