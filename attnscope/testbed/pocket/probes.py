"""What the model card states about heads and the residual stream, measured without the attnscope engine.

A second, plain implementation on purpose: the engine's own statistics can be checked against these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

Reader = Callable[[int, torch.Tensor, torch.Tensor, float], None]


@contextmanager
def attention_reader(model: Any, read: Reader) -> Iterator[None]:
    """Call `read(layer, q, k, scale)` in every attention layer; k is repeated to one head per query head."""
    from transformers import AttentionInterface

    def attend(
        module: Any, q: Any, k: Any, v: Any, attention_mask: Any, scaling: float, **_: Any
    ) -> tuple[torch.Tensor, None]:
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        read(module.layer_idx, q, k, scaling)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        return out.transpose(1, 2).contiguous(), None

    before = model.config._attn_implementation
    AttentionInterface.register("pocket_reader", attend)
    model.set_attn_implementation("pocket_reader")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def rows(q: torch.Tensor, k: torch.Tensor, scale: float, first: int, last: int) -> torch.Tensor:
    """The attention rows of queries first..last-1, [B, H, last - first, T], in fp32."""
    logits = (q[:, :, first:last].float() @ k.float().transpose(-1, -2)) * scale
    key = torch.arange(k.shape[2], device=q.device)
    query = torch.arange(first, last, device=q.device)
    return logits.masked_fill(key > query[:, None], float("-inf")).softmax(-1)


@torch.no_grad()
def first_token_mass(model: Any, ids: torch.Tensor, batch: int = 4, chunk: int = 512) -> torch.Tensor:
    """Mean attention on position 0 over all its queries, [samples, L, H]."""
    c = model.config
    mass = torch.zeros(len(ids), c.num_hidden_layers, c.num_attention_heads)
    for s in range(0, len(ids), batch):

        def read(layer: int, q: torch.Tensor, k: torch.Tensor, scale: float, s: int = s) -> None:
            total = torch.zeros(q.shape[:2], device=q.device)
            for first in range(0, q.shape[2], chunk):
                last = min(first + chunk, q.shape[2])
                total += rows(q, k, scale, first, last)[..., 0].sum(-1)
            mass[s : s + len(q), layer] = (total / q.shape[2]).cpu()

        with attention_reader(model, read):
            model(ids[s : s + batch], use_cache=False, logits_to_keep=1)
    return mass


@torch.no_grad()
def pattern_scores(model: Any, n: int = 100, repeats: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Previous-token, duplicate and induction scores on random tokens doubled behind BOS, each [L, H]."""
    c = model.config
    half = torch.randint(2, c.vocab_size, (repeats, n), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat([torch.full((repeats, 1), c.bos_token_id), half, half], 1).to(model.device)
    offsets = {"previous_token": -1, "duplicate_token": -n, "induction": 1 - n}
    found = {k: torch.zeros(c.num_hidden_layers, c.num_attention_heads) for k in offsets}

    def read(layer: int, q: torch.Tensor, k: torch.Tensor, scale: float) -> None:
        weights = rows(q, k, scale, 0, q.shape[2])
        for name, offset in offsets.items():
            diagonal = weights.diagonal(offset, dim1=-2, dim2=-1)
            found[name][layer] = diagonal[..., 1:].mean((0, 2)).cpu()

    with attention_reader(model, read):
        model(ids, use_cache=False, logits_to_keep=1)
    return found


@torch.no_grad()
def retrieval_scores(model: Any, items: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
    """Retrieval score [L, H]: argmax key of the emitting query is the needle token that is emitted.

    Greedy and teacher-forced agree on the items that count, which are those answered right; also returns how many.
    """
    c = model.config
    total, counted = torch.zeros(c.num_hidden_layers, c.num_attention_heads), 0
    for item in items:
        answer, n = item["answer_ids"], len(item["input_ids"])
        score = torch.zeros_like(total)
        source = torch.tensor(item["source_positions"], device=model.device)

        def read(
            layer: int,
            q: torch.Tensor,
            k: torch.Tensor,
            scale: float,
            n: int = n,
            source: Any = source,
            score: Any = score,
        ) -> None:
            top = rows(q, k, scale, n - 1, n - 1 + len(source)).argmax(-1)[0]
            score[layer] = (top == source).float().mean(-1).cpu()

        ids = torch.tensor([item["input_ids"] + answer], device=model.device)
        with attention_reader(model, read):
            logits = model(ids, use_cache=False, logits_to_keep=len(answer) + 1).logits
        if logits[0, :-1].argmax(-1).tolist() == answer:
            total, counted = total + score, counted + 1
    return total / max(1, counted), counted


@torch.no_grad()
def residual_stream(model: Any, ids: torch.Tensor) -> dict[str, Any]:
    """Norms at position 0 and elsewhere by block output, who wrote them, and the largest dimensions."""
    outputs: list[torch.Tensor] = []
    writes: dict[str, list[float]] = {"attention": [], "mlp": []}
    hooks = []
    for layer in model.model.layers:
        hooks.append(
            layer.register_forward_hook(lambda m, a, o: outputs.append((o[0] if isinstance(o, tuple) else o).float()))
        )
        for name, part in (("attention", layer.self_attn), ("mlp", layer.mlp)):
            hooks.append(
                part.register_forward_hook(
                    lambda m, a, o, name=name: writes[name].append(
                        (o[0] if isinstance(o, tuple) else o)[:, 0].float().norm(dim=-1).mean().item()
                    )
                )
            )
    try:
        model(ids, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    h = torch.stack(outputs)
    first = h[:, :, 0].norm(dim=-1).mean(1)
    others = h[:, :, 1:].norm(dim=-1).flatten(1).median(1).values
    size = h[:, :, 1:].abs().mean((0, 1, 2))
    by_depth = h[:, :, 1:].abs().mean((1, 2))
    jump = torch.diff(first, prepend=model.model.embed_tokens(ids[:1, :1]).float().norm().view(1))
    writer = int(jump.argmax())
    top = size.topk(3)
    return {
        "first_token_norm": [round(x, 2) for x in first.tolist()],
        "other_token_norm": [round(x, 2) for x in others.tolist()],
        "sink_block": writer,
        "sink_block_mlp_write": round(writes["mlp"][writer], 2),
        "sink_block_attention_write": round(writes["attention"][writer], 2),
        "residual_sink_dimensions": top.indices.tolist(),
        "residual_sink_sizes": [round(x, 2) for x in top.values.tolist()],
        "residual_median_size": round(size.median().item(), 3),
        "residual_sink_ratio": round((top.values[0] / size.median()).item(), 2),
        "residual_sink_ratio_by_block": [round((d.max() / d.median()).item(), 1) for d in by_depth],
    }
