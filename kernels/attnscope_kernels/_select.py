"""Parts of an AttentionCall: some query heads, a range of queries."""

from __future__ import annotations

from dataclasses import replace

from .call import AttentionCall, HeadOutput, Knockout
from .errors import ContractError


def select_queries(call: AttentionCall, first: int, last: int) -> AttentionCall:
    """Return the call of the queries first..last-1; keys stay whole."""
    if first >= last:
        raise ContractError("selection of queries", found=f"{first}..{last}", expected="at least one query")
    output = call.head_output
    if output is not None and output.patches is not None and output.patches.shape[2] > 1:
        output = replace(output, patches=output.patches[:, :, first:last])
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
        patches = None
        if output.patches is not None and kept:
            patches = output.patches[:, [output.patched.index(head) for head in kept]]
        output = HeadOutput(output.scale[heads], tuple(heads.index(head) for head in kept), patches)
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
