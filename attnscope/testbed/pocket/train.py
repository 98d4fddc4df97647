"""Train the pocket model: one process, one device, resumable."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from attnscope.core.errors import AttnscopeError
from attnscope.testbed.pocket import checkpoint
from attnscope.testbed.pocket.config import Recipe
from attnscope.testbed.pocket.mixture import Stream, encode_corpus
from attnscope.testbed.pocket.tokenizer import BOS_ID, EOS_ID, read_corpus, save_tokenizer, train_tokenizer


def build_model(r: Recipe) -> Any:
    """A freshly initialised Llama of the recipe's size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=r.vocab,
        hidden_size=r.hidden,
        intermediate_size=r.intermediate,
        num_hidden_layers=r.layers,
        num_attention_heads=r.heads,
        num_key_value_heads=r.kv_heads,
        head_dim=64,
        max_position_embeddings=r.context,
        rope_parameters={"rope_type": "default", "rope_theta": r.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=EOS_ID,
        initializer_range=0.02,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def token_losses(hidden: torch.Tensor, head: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every next token, [rows, length - 1]."""
    logits = (hidden[:, :-1] @ head.T).float()
    flat = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(ids.shape[0], -1)


def fastest_attention(device: str, r: Recipe) -> str:
    """Time the fused attentions once and leave only the fastest one on (CUDA)."""
    shape = (max(1, r.tokens_per_step // r.short), r.heads, r.short, 64)
    kv = (shape[0], r.kv_heads, *shape[2:])
    q, k, v = (torch.randn(s, device=device, dtype=torch.bfloat16, requires_grad=True) for s in (shape, kv, kv))
    times: dict[str, float] = {}
    for name in ("cudnn", "flash"):
        torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
        torch.backends.cuda.enable_flash_sdp(name == "flash")
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(False)
        try:
            for i in range(8):
                if i == 3:
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).sum().backward()
            torch.cuda.synchronize()
            times[name] = time.perf_counter() - begin
        except RuntimeError as error:
            print(f"attention {name}: not usable here ({error})"[:200], flush=True)
    best = min(times, key=lambda n: times[n]) if times else "math"
    torch.backends.cuda.enable_cudnn_sdp(best == "cudnn")
    torch.backends.cuda.enable_flash_sdp(best == "flash")
    torch.backends.cuda.enable_math_sdp(True)
    print("attention", best, {n: round(t * 200, 2) for n, t in times.items()}, "ms", flush=True)
    return best


def prepare(r: Recipe, corpus: Path, out: Path, tokenizer: Path | None = None) -> tuple[Path, Path]:
    """Make the tokenizer and the tokenised corpus in `out`, unless they are there."""
    out.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        tokenizer = out / "tokenizer"
        if not (tokenizer / "tokenizer.json").exists():
            save_tokenizer(train_tokenizer(read_corpus(corpus), r.vocab), tokenizer, r.context)
    prose = out / "prose.npy"
    if not prose.exists():
        encode_corpus(corpus, tokenizer / "tokenizer.json", prose, os.cpu_count() or 1)
    return tokenizer / "tokenizer.json", prose


def train(
    recipe: Recipe,
    corpus: Path,
    out: Path,
    device: str = "cuda",
    seconds: float | None = None,
    tokens: int | None = None,
    seed: int = 0,
    *,
    tokenizer: Path | None = None,
    data: Path | None = None,
    pause_at: float = 1.0,
    pause_after: float | None = None,
    save_every: float = 120.0,
    workers: int = 4,
    compile_layers: bool = True,
) -> dict[str, Any]:
    """Train until the budget of seconds or tokens is spent, or pause before that; a second call goes on.

    `pause_at` is a share of the budget, `pause_after` a number of seconds for this call alone. The folder `out`
    receives the checkpoint and `model/`, the model as it ships.
    """
    begin = time.time()
    if (seconds is None) == (tokens is None):
        raise AttnscopeError(
            "training budget",
            found=f"seconds={seconds}, tokens={tokens}",
            expected="one of the two",
            fix="Give a budget in seconds or in tokens.",
        )
    out.mkdir(parents=True, exist_ok=True)
    files = prepare(recipe, corpus, data or out, tokenizer)
    state: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "long_steps": 0, "restarted_at": 0}
    if (out / checkpoint.STATE).exists():
        state |= json.loads((out / checkpoint.STATE).read_text(encoding="utf-8"))
    streams = {
        recipe.short: Stream(seed, state["step"] - state["long_steps"], recipe.short, files, recipe, workers),
        recipe.long: Stream(seed, state["long_steps"], recipe.long, files, recipe, max(1, workers // 2)),
    }
    torch.manual_seed(seed)
    cuda = device.startswith("cuda")
    if cuda:
        torch.set_float32_matmul_precision("high")
        fastest_attention(device, recipe)
    model = build_model(recipe).to(device)
    wide = [p for p in model.parameters() if p.dim() > 1]
    thin = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": wide, "weight_decay": recipe.weight_decay}, {"params": thin, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=cuda)
    checkpoint.load(out, model, optimiser)
    losses = token_losses
    if compile_layers:
        torch._dynamo.config.cache_size_limit = 64  # two lengths, and a margin for one entry a layer
        for layer in model.model.layers:
            layer.compile(dynamic=False)
        losses = torch.compile(token_losses, dynamic=False)
    recipe.save(out / "recipe.json")
    print(
        f"prepared in {time.time() - begin:.0f} s; {sum(p.numel() for p in model.parameters())} parameters", flush=True
    )

    saved = time.time()
    before, clock, logged, warm = state["seconds"], time.time(), (time.time(), state["tokens"]), 0
    while True:
        spent = before + time.time() - clock
        progress = spent / seconds if seconds else state["tokens"] / (tokens or 1)
        if progress >= min(1.0, pause_at) or (pause_after and time.time() - begin >= pause_after):
            break
        draw = random.Random(f"{seed}:length:{state['step']}").random()
        long = progress >= recipe.long_from and draw < recipe.long_share
        ids_np, weights_np = next(streams[recipe.long if long else recipe.short])
        ids = torch.from_numpy(ids_np.astype("int32")).to(device, non_blocking=True).long()
        weights = torch.from_numpy(weights_np).to(device, non_blocking=True).float()[:, 1:]
        rate = recipe.lr * recipe.scale(progress, state["step"], state["restarted_at"])
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda):
            hidden = model.model(ids, use_cache=False).last_hidden_state
            each = losses(hidden, model.lm_head.weight, ids)
        loss = (each * weights).sum() / weights.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        state["step"] += 1
        state["tokens"] += ids.numel()
        state["long_steps"] += int(long)
        warm += 1
        if warm == 3:
            loss.item()
            clock = time.time()  # compiling is not training time
        if time.time() - saved >= save_every:
            checkpoint.save(out, model, optimiser, state | {"seconds": before + time.time() - clock})
            checkpoint.export(out / "model", model)
            saved = time.time()
        if state["step"] % 200 == 0:
            prose, asked = each.detach()[weights == 1].mean().item(), each.detach()[weights > 1].mean().item()
            now, rate_tokens = time.time(), state["tokens"] - logged[1]
            line = f"{state['step']} long={int(long)} prose {prose:.3f} answers {asked:.4f} lr {rate:.2e} "
            print(line + f"{spent:.0f} s {rate_tokens / (now - logged[0]) / 1e6:.2f} Mtok/s", flush=True)
            logged = (now, state["tokens"])
    if cuda:
        torch.cuda.synchronize()
    state["seconds"] = before + time.time() - clock
    for stream in streams.values():
        stream.close()
    checkpoint.save(out, model, optimiser, state)
    checkpoint.export(out / "model", model)
    print("paused", json.dumps(state), flush=True)
    return state
