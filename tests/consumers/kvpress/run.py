"""Drive kvpress' DuoAttention press with a pattern of ours, and measure needle accuracy beside random choices.

Runs in an environment of its own (`make test-kvpress`): kvpress 0.5.5 needs transformers below 5.3. It reads a pattern
folder (`full_attention_heads.tsv` and `config.json`, as DuoAttention's own code writes them) and a JSON file of
needles, and imports nothing of attnscope.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kvpress import DuoAttentionPress
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils.logging import disable_progress_bar

POINTS = 0.03


@dataclass
class PatternPress(DuoAttentionPress):
    """The press with a pattern from a folder in place of one from the network."""

    pattern: tuple[int, int, np.ndarray] = (0, 1, np.zeros((1, 1)))

    def load_attention_pattern(self, model: Any) -> tuple[int, int, np.ndarray]:
        """Return (sink, recent, scores `[L, G]`)."""
        return self.pattern


def read_pattern(folder: Path, shape: tuple[int, int]) -> tuple[int, int, np.ndarray]:
    """Read a pattern as kvpress reads the published ones."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scores = np.loadtxt(folder / "full_attention_heads.tsv", dtype=float, delimiter="\t", ndmin=2)
    if scores.shape != shape:
        raise SystemExit(f"{folder}: a pattern {scores.shape}; the model has {shape} layers and KV heads")
    return config["sink_size"], config["recent_size"], np.clip(scores, 0, 1)


@torch.no_grad()
def read(model: Any, press: PatternPress, context: list[int]) -> DynamicCache:
    """Read the context densely; the press then marks the keys that streaming heads may no longer see."""
    cache = DynamicCache()
    with press(model):
        model.model(input_ids=torch.tensor([context]), past_key_values=cache)
    return cache


def mark(model: Any, press: PatternPress, cache: DynamicCache) -> None:
    """Mark the keys of a context that was read already: the prefill is dense, so it is the same for every press."""
    press.post_init_from_model(model)
    for block, layer in zip(model.model.layers, cache.layers, strict=True):
        block.self_attn.masked_key_indices = None
        press.compress(block.self_attn, None, layer.keys, layer.values, None, {})


@torch.no_grad()
def decode(model: Any, cache: DynamicCache, question: list[int], n: int) -> list[int]:
    """Decode n tokens greedily, as kvpress' pipeline does, and leave the cache as it was."""
    before = [(layer.keys, layer.values) for layer in cache.layers]
    made, ids = [], question
    for _ in range(n):
        at = torch.arange(cache.get_seq_length(), cache.get_seq_length() + len(ids))[None]
        output = model(input_ids=torch.tensor([ids]), past_key_values=cache, position_ids=at, logits_to_keep=1)
        ids = [int(output.logits[0, -1].argmax())]
        made += ids
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        layer.keys, layer.values = keys, values
    return made


def answers(model: Any, presses: list[PatternPress], needle: dict) -> list[float]:
    """Return whether the needle is answered under each press; the first one reads the context itself.

    Raises:
        SystemExit: the first press answers otherwise when it marks the context afterwards.
    """
    start, n = needle["question_position"], len(needle["answer_ids"])
    context, question = needle["input_ids"][:start], needle["input_ids"][start:]
    cache = read(model, presses[0], context)
    whole = decode(model, cache, question, n)
    made = []
    for press in presses:
        mark(model, press, cache)
        made.append(decode(model, cache, question, n))
    if made[0] != whole:
        raise SystemExit(f"the press gives {whole} in its own prefill, and {made[0]} after a prefill that is shared")
    return [float(each == needle["answer_ids"]) for each in made]


def wilson(share: float, n: int, z: float = 1.959964) -> list[float]:
    """Return Wilson's 95% interval."""
    middle, half = (share + z * z / (2 * n)), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))]


def bootstrap(values: np.ndarray, seed: int = 0) -> list[float]:
    """Return the 95% percentile interval of the mean."""
    draws = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    return [float(x) for x in np.quantile(values[draws].mean(1), [0.025, 0.975])]


def row(length: int, budget: float, choice: str, right: np.ndarray, baseline: np.ndarray) -> dict:
    """Return one row of the table from `[needles, draws]` 0 or 1."""
    n, draws = right.shape
    change = right.mean(0) - baseline.mean()
    paired = (right - baseline[:, None])[:, 0] if draws == 1 else change
    return {
        "length": length,
        "budget": budget,
        "choice": choice,
        "needles": n,
        "draws": draws,
        "accuracy": float(right.mean()),
        "interval": wilson(float(right.mean()), n) if draws == 1 else bootstrap(right.mean(0)),
        "difference": float(change.mean()),
        "difference_interval": bootstrap(paired),
        "draws_within_3_points": int((change >= -POINTS - 1e-12).sum()),
    }


def main() -> None:
    """Measure, print a table, write JSON; exit code 1 where the pattern does not keep what it promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a transformers model")
    parser.add_argument("pattern", type=Path, help="folder with full_attention_heads.tsv and config.json")
    parser.add_argument("needles", type=Path, help="JSON: length -> list of needles")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.0625, 0.125, 0.25, 0.5])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--assert-budget", type=float, help="ours within 3 points here, random choices not")
    options = parser.parse_args()
    disable_progress_bar()

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    config = model.config
    shape = (config.num_hidden_layers, config.num_key_value_heads)
    sink, recent, scores = read_pattern(options.pattern, shape)
    if sink + recent < 1 or not 0 < min(options.budgets) <= max(options.budgets) < 1:
        raise SystemExit("a window of at least one token, and budgets between 0 and 1")

    def press(values: np.ndarray, budget: float) -> PatternPress:
        return PatternPress(head_compression_ratio=1 - budget, pattern=(sink, recent, values))

    drawn = [np.random.default_rng(1000 * i + 7).permutation(scores.size).reshape(shape) for i in range(options.draws)]
    drawn = [each / scores.size for each in drawn]
    presses = [press(scores, budget) for budget in options.budgets]
    presses += [press(values, budget) for budget in options.budgets for values in drawn]
    presses += [press(scores, 1.0)]
    rows, n = [], len(options.budgets)
    for length, needles in json.loads(options.needles.read_text(encoding="utf-8")).items():
        began = time.time()
        right = np.array([answers(model, presses, needle) for needle in needles])
        baseline, random = right[:, -1], right[:, n:-1].reshape(len(right), n, options.draws)
        rows.append(row(int(length), 1.0, "all full", baseline[:, None], baseline))
        for i, budget in enumerate(options.budgets):
            rows.append(row(int(length), budget, "ours", right[:, i : i + 1], baseline))
            rows.append(row(int(length), budget, "random", random[:, i], baseline))
        for each in rows[-1 - 2 * len(options.budgets) :]:
            low, high = each["interval"]
            print(
                f"{each['length']:>6} tokens  {each['budget']:>7.2%} full  {each['choice']:<9} {each['accuracy']:.3f}"
                f" [{low:.3f}, {high:.3f}]  difference {each['difference']:+.3f}"
                f" [{each['difference_interval'][0]:+.3f}, {each['difference_interval'][1]:+.3f}]"
                f"  {each['draws_within_3_points']} of {each['draws']} within 3 points",
                flush=True,
            )
        print(f"{length} tokens took {time.time() - began:.0f} s", flush=True)
    if options.out is not None:
        figures = {"sink_size": sink, "recent_size": recent, "rows": rows}
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.assert_budget is not None:
        held = {(each["length"], each["choice"]): each for each in rows if each["budget"] == options.assert_budget}
        for (length, choice), each in held.items():
            below = each["difference"] < -POINTS - 1e-12
            if below != (choice == "random") or (choice == "random" and each["difference_interval"][1] >= -POINTS):
                raise SystemExit(f"{length} tokens, {choice}: difference {each['difference']:+.3f}")


if __name__ == "__main__":
    main()
