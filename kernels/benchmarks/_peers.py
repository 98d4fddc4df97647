"""The peers of the GPU benchmark: forwards of libraries, and what one writes without us."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attnscope_kernels import AttentionCall

BLOCK = 128


def cudnn(call: AttentionCall) -> Tensor:
    """z of cuDNN."""
    return _sdpa(call, SDPBackend.CUDNN_ATTENTION)


def flash2(call: AttentionCall) -> Tensor:
    """z of FlashAttention-2, as torch contains it."""
    return _sdpa(call, SDPBackend.FLASH_ATTENTION)


def _sdpa(call: AttentionCall, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(
            call.q, call.k, call.v, is_causal=True, scale=call.scale, enable_gqa=call.group_size > 1
        )


class Flex:
    """z and lse of FlexAttention, compiled for one shape."""

    def __init__(self, call: AttentionCall) -> None:
        self.mask = _causal(call.q.shape[2])
        self.compiled: Callable[..., object] = torch.compile(flex_attention, dynamic=False)

    def __call__(self, call: AttentionCall) -> Tensor:
        """Return z."""
        from torch.nn.attention.flex_attention import AuxRequest

        z, _ = self.compiled(
            call.q,
            call.k,
            call.v,
            block_mask=self.mask,
            scale=call.scale,
            enable_gqa=call.group_size > 1,
            return_aux=AuxRequest(lse=True),
        )
        return z


def _causal(tokens: int) -> BlockMask:
    """The causal mask block by block, without the T×T mask that `create_block_mask` evaluates."""
    blocks = -(-tokens // BLOCK)
    row = torch.arange(blocks, device="cuda", dtype=torch.int32)
    order = row.expand(1, 1, blocks, blocks).contiguous()
    return BlockMask.from_kv_blocks(
        torch.ones(1, 1, blocks, dtype=torch.int32, device="cuda"),
        row[None, None, :, None].expand(1, 1, blocks, blocks).contiguous(),
        row[None, None].contiguous(),
        order,
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda b, h, q, k: q >= k,
        seq_lengths=(tokens, tokens),
    )


def eager(call: AttentionCall) -> dict[str, Tensor]:
    """z and the same statistics from the dense matrix, as one writes it in a notebook."""
    tokens = call.q.shape[2]
    k, v = (x.repeat_interleave(call.group_size, dim=1) for x in (call.k, call.v))
    logits = torch.matmul(call.q, k.transpose(2, 3)).mul_(call.scale)
    logits.masked_fill_(torch.ones(tokens, tokens, dtype=torch.bool, device="cuda").triu_(1), -math.inf)
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32)
    del logits
    return {
        "output": torch.matmul(weights.to(call.v.dtype), v),
        "entropy": torch.special.entr(weights).sum(-1),
        "max_prob": weights.amax(-1),
        "received": weights.sum(-2),
    }
