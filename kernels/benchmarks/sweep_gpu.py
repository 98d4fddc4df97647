"""Every head of an 8B-shaped model ablated at the answer of a long prompt, against one whole forward for each head.

The same model, prompt and metric in one process. `one prefill` is `attnscope.engine.sweep` with `positions="answer"`:
the prompt's keys and values once, then one token for the unedited row and one for each head. `a forward each` is
measured for ten heads spread over the layers, and scaled to all of them. Before any speed is reported, both ways must
agree: in float32 on the first layers of the same shape at 2,048 tokens, and here within what bfloat16 allows.

usage: python kernels/benchmarks/sweep_gpu.py [--tokens 32768] [--config llama-3.1-8b] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from _gpu import table
from transformers import AutoConfig

import attnscope
from attnscope.engine.sweep.run import sweep
from attnscope.engine.sweep.units import Unit

RUNS, FORWARDS, GATE_TOKENS, GATE_LAYERS, TOLERANCE = 3, 10, 2048, 4, 1e-5
SHAPES = Path(__file__).resolve().parents[2] / "data" / "shapes"


def prompts(tokens: int) -> datasets.Dataset:
    """One random prompt and its answer."""
    ids = torch.randint(0, 100_000, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    return datasets.Dataset.from_list([{"input_ids": ids, "answer_ids": [1234], "wrong_ids": [4321]}])


def seconds(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Return the median time and the last result."""
    taken = []
    for _ in range(runs):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        result = work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken), result


def spread(info: Any, count: int) -> list[tuple[Unit, ...]]:
    """Return heads from the first layer to the last."""
    heads = info.heads
    return [(Unit(heads[i].layer, "head", heads[i].head),) for i in np.linspace(0, len(heads) - 1, count).astype(int)]


def compare(scope: Any, tokens: int, heads: list[tuple[Unit, ...]]) -> tuple[float, float]:
    """Return the largest difference between both ways, and the largest effect."""
    both = [
        sweep(scope, prompts(tokens), heads, metrics="logit_difference", positions="answer", method=method)
        for method in ("stacked", "plain")
    ]
    one, other = (found.values["logit_difference"] for found in both)
    return float(np.abs(one - other).max()), float(np.abs(both[1].effect("logit_difference")).max())


def gate(name: str) -> str:
    """Compare in float32; no speed is reported where this fails."""
    config = AutoConfig.from_pretrained(SHAPES / f"{name}.json")
    config.num_hidden_layers = GATE_LAYERS
    small = attnscope.load(config=config, random_weights=True, device="cuda", dtype="float32")
    gap, effect = compare(small, GATE_TOKENS, spread(small.info, 12))
    del small
    torch.cuda.empty_cache()
    if not gap <= TOLERANCE * max(1.0, effect):
        raise SystemExit(f"red gate: the two ways differ by {gap:.2e} in float32 (largest effect {effect:.2e})")
    return f"float32, {GATE_LAYERS} layers, {GATE_TOKENS} tokens: largest difference {gap:.1e}, effect {effect:.1e}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32768])
    parser.add_argument("--config", default="llama-3.1-8b")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checked = gate(options.config)
    scope = attnscope.load(config=options.config, random_weights=True, device="cuda", dtype="bfloat16")
    card = torch.cuda.get_device_properties(0).name
    head = (
        f"{card}, torch {torch.__version__}, {options.config}, random weights, bfloat16, one prompt\n\ngate: {checked}"
    )
    rows: list[dict[str, object]] = []
    for tokens in options.tokens:
        ask: dict[str, Any] = {"metrics": "logit_difference", "positions": "answer"}
        chosen, all_heads = spread(scope.info, FORWARDS), len(scope.info.heads)
        sweep(scope, prompts(tokens), chosen[:1], **ask)
        torch.cuda.reset_peak_memory_stats()
        ours, found = seconds(lambda: sweep(scope, prompts(tokens), "head", **ask), RUNS)
        peak = torch.cuda.max_memory_allocated() / 2**30
        plain, slow = seconds(lambda: sweep(scope, prompts(tokens), chosen, method="plain", **ask), 1)
        base, _ = seconds(lambda: sweep(scope, prompts(tokens), chosen[:1], method="plain", **ask), 1)
        each = (plain - base) / (len(chosen) - 1)
        columns = [found.variants.index(variant) for variant in chosen]
        gap = np.abs(found.values["logit_difference"][:, columns] - slow.values["logit_difference"]).max()
        rows.append(
            {
                "T": tokens,
                "heads": all_heads,
                "one prefill, s": ours,
                "a forward each, s (scaled)": each * all_heads,
                "one forward, s": each,
                "faster": each * all_heads / ours,
                "peak, GiB": peak,
                "largest difference, logits": float(gap),
                "drift, logits": found.drift,
            }
        )
        text = f"{head}\n\n{table(rows)}"
        print(text, flush=True)
        if options.out:
            options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
