"""Every figure on the pocket model's card, from the weights as they ship."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from attnscope.core.paths import data_path
from attnscope.tasks import _world as world
from attnscope.tasks.needle import Needle
from attnscope.tasks.reasoning import Reasoning
from attnscope.tasks.recall import Recall
from attnscope.testbed.pocket import probes

NEEDLE_KINDS: tuple[world.NeedleKind, ...] = ("code", "word")
LENGTHS = (512, 1024, 2048, 4096, 8192)


@torch.no_grad()
def right(model: Any, items: list[dict[str, Any]], batch_tokens: int = 32_768) -> list[bool]:
    """Whether greedy decoding gives each answer exactly (padding stands on the right, so nothing sees it)."""
    found, width = [], max(len(i["input_ids"]) + len(i["answer_ids"]) for i in items)
    size = max(1, batch_tokens // width)
    for s in range(0, len(items), size):
        part = items[s : s + size]
        full = [i["input_ids"] + i["answer_ids"] for i in part]
        ids = torch.full((len(part), width), 1)
        for n, f in enumerate(full):
            ids[n, : len(f)] = torch.tensor(f)
        hidden = model.model(ids.to(model.device), use_cache=False).last_hidden_state
        for n, item in enumerate(part):
            first = len(item["input_ids"]) - 1
            logits = hidden[n, first : first + len(item["answer_ids"])] @ model.lm_head.weight.T
            found.append(logits.argmax(-1).tolist() == item["answer_ids"])
    return found


def share(flags: list[bool]) -> float:
    """The share of true flags."""
    return round(sum(flags) / len(flags), 4)


def windows(prose: list[int], length: int, n: int, seed: int, device: Any) -> torch.Tensor:
    """`n` pieces of prose of `length` tokens, BOS first."""
    rng = random.Random(f"windows:{seed}:{length}")
    starts = [rng.randrange(len(prose) - length) for _ in range(n)]
    return torch.tensor([[0, *prose[i : i + length - 1]] for i in starts], device=device)


@torch.no_grad()
def prose_loss(model: Any, prose: list[int], length: int) -> float:
    """Mean nats per token over the prose cut into consecutive pieces, BOS before each."""
    total, count, body = 0.0, 0, length - 1
    for s in range(0, len(prose) - body, body):
        ids = torch.tensor([[0, *prose[s : s + body]]], device=model.device)
        logits = model(ids, use_cache=False).logits[0, :-1].float()
        total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += body
    return round(total / max(1, count), 4)


def accuracies(model: Any, tokenizer: Any, n: int, lengths: tuple[int, ...], needles: int) -> dict[str, Any]:
    """Recall, reasoning by kind and needle by length, on test items."""
    found: dict[str, Any] = {"recall": share(right(model, Recall(n=min(n, 1600)).rows(tokenizer)))}
    found["recall_trained_wording"] = share(right(model, Recall(n=min(n, 1600), split="train").rows(tokenizer)))
    items = Reasoning(n=n).rows(tokenizer)
    flags = right(model, items)
    found["reasoning"] = share(flags)
    for kind in world.PUZZLE_KINDS:
        for steps in sorted({i["steps"] for i in items if i["kind"] == kind}):
            got = [f for f, i in zip(flags, items) if i["kind"] == kind and i["steps"] == steps]
            found[f"reasoning_{kind}_{steps}"] = share(got)
    for length in lengths:
        for hidden in NEEDLE_KINDS:
            rows = Needle(n=needles, length=length, kind=hidden).rows(tokenizer)
            found[f"needle_{hidden}_{length}"] = share(right(model, rows))
    return found


def heads_over(scores: torch.Tensor, least: float) -> dict[str, float]:
    """Heads with at least this score, best first."""
    flat = [(round(v, 3), f"L{i}H{j}") for i, r in enumerate(scores.tolist()) for j, v in enumerate(r) if v >= least]
    return {name: value for value, name in sorted(flat, reverse=True)}


def figures(
    model: Any,
    tokenizer: Any,
    *,
    n: int = 1500,
    needles: int = 100,
    lengths: tuple[int, ...] = LENGTHS,
    sink_lengths: tuple[int, ...] = (64, 512, 4096),
    samples: int = 100,
) -> dict[str, Any]:
    """All figures as one dictionary."""
    model.eval()
    text = data_path("pocket/heldout.txt").read_text(encoding="utf-8")
    prose = world.encode(tokenizer, text)
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    found |= accuracies(model, tokenizer, n, lengths, needles)
    for length in (1024, 8192):
        found[f"heldout_loss_{length}"] = prose_loss(model, prose, length)
    found["heldout_bits_per_character"] = round(found["heldout_loss_1024"] * len(prose) / len(text) / math.log(2), 4)
    for length in sink_lengths:
        mass = probes.first_token_mass(model, windows(prose, length, samples, 0, model.device))
        found[f"sink_rate_{length}"] = round(100 * (mass > 0.3).float().mean().item(), 2)
        found[f"first_token_mass_{length}"] = [[round(x, 3) for x in r] for r in mass.mean(0).tolist()]
    found |= probes.residual_stream(model, windows(prose, 512, 16, 1, model.device))
    patterns = probes.pattern_scores(model)
    found["induction_heads"] = heads_over(patterns["induction"], 0.3)
    found["previous_token_heads"] = heads_over(patterns["previous_token"], 0.3)
    found["duplicate_token_heads"] = heads_over(patterns["duplicate_token"], 0.3)
    items = [i for length in lengths if length <= 4096 for i in Needle(n=20, seed=5, length=length).rows(tokenizer)]
    scores, counted = probes.retrieval_scores(model, items)
    found["retrieval_heads"] = heads_over(scores, 0.1)
    found["retrieval_trials"] = counted
    return found


def bars(f: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    """The promises of the card: figure and whether it is kept."""
    needle = [v for k, v in f.items() if k.startswith("needle_") and int(k.rsplit("_", 1)[1]) <= 4096]
    far = [v for k, v in f.items() if k.startswith("needle_") and k.endswith("_8192")]
    grow = f["first_token_norm"][-1] / f["other_token_norm"][-1]
    second = [*sorted(f["induction_heads"].values(), reverse=True), 0.0, 0.0]
    previous = [*sorted(f["previous_token_heads"].values(), reverse=True), 0.0]
    found = [*sorted(f["retrieval_heads"].values(), reverse=True), 0.0, 0.0]
    table = {
        "recall >= .97": (f["recall"], 0.97),
        "reasoning >= .93": (f["reasoning"], 0.93),
        "needle, worst up to 4096 >= .97": (min(needle, default=0.0), 0.97),
        "needle at 8192 >= .9": (min(far, default=0.0), 0.9),
        "second induction head >= .9": (second[1], 0.9),
        "previous-token head >= .9": (previous[0], 0.9),
        "second retrieval head >= .5": (found[1], 0.5),
        "sink rate at 64 >= 55": (f.get("sink_rate_64", 0.0), 55.0),
        "first token's final norm over others' >= 2": (round(grow, 2), 2.0),
        "residual sink ratio >= 10": (f["residual_sink_ratio"], 10.0),
    }
    return {k: (v, v >= least) for k, (v, least) in table.items()}


def load(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """The shipped model in its own precision, and its tokenizer."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def quick(folder: Path, tokenizer_folder: Path, device: str) -> dict[str, Any]:
    """A minute's worth of figures for choosing between candidates."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    return figures(model, tokenizer, n=300, needles=20, lengths=(1024, 4096, 8192), sink_lengths=(64, 512), samples=50)


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the figures, machine-readable."""
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
