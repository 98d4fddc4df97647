"""Every head of an 8B-shaped model ablated at the answer of a long prompt, against one whole forward for each head.

The same model, prompt and metric in one process. `one prefill` is `attnscope.engine.sweep` with `positions="answer"`:
the prompt's keys and values once, then one token for the unedited row and one for each head. `a forward each` is
measured for ten heads spread over the layers, and scaled to all of them. Before any speed is reported, both ways must
agree on the first layers of the same shape at 2,048 tokens, in double and in single precision.

usage: python kernels/benchmarks/sweep_gpu.py [--tokens 32768] [--config llama-3.1-8b] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
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

RUNS, FORWARDS, GATE_TOKENS, GATE_LAYERS = 3, 10, 2048, 4
TOLERANCE, SINGLE = 1e-5, 1e-4
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
    return [(Unit("head", heads[i].layer, heads[i].head),) for i in np.linspace(0, len(heads) - 1, count).astype(int)]


def gap(scope: Any, tokens: int, heads: list[tuple[Unit, ...]], implementation: str = "auto") -> float:
    """Return the largest difference between both ways, in logits."""
    options: dict[str, Any] = {"metrics": "logit_difference", "positions": "answer", "implementation": implementation}
    one, other = (sweep(scope, prompts(tokens), heads, method=method, **options) for method in ("stacked", "plain"))
    return float(np.abs(one.values["logit_difference"] - other.values["logit_difference"]).max())


def gate(name: str) -> str:
    """Compare in double and single precision; no speed is reported where this fails.

    In double precision (but for norms and rotary angles, which transformers computes in single) both ways agree to
    1e-5. In single precision matrix products of one row and of thousands of rows round differently as well.
    """
    config = AutoConfig.from_pretrained(SHAPES / f"{name}.json")
    config.num_hidden_layers = GATE_LAYERS
    small = attnscope.load(config=config, random_weights=True, device="cuda", dtype="float32")
    heads = spread(small.info, 12)
    single = gap(small, GATE_TOKENS, heads)
    small.model.double()
    double = gap(small, GATE_TOKENS, heads, "tiled")
    del small
    torch.cuda.empty_cache()
    if not (double <= TOLERANCE and single <= SINGLE):
        raise SystemExit(f"red gate: the two ways differ by {double:.1e} in float64, {single:.1e} in float32")
    return (
        f"{GATE_LAYERS} layers, {GATE_TOKENS} tokens: largest difference {double:.1e} (float64), {single:.1e} (float32)"
    )


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
        ask = partial(sweep, scope, prompts(tokens), metrics="logit_difference", positions="answer")
        chosen, all_heads = spread(scope.info, FORWARDS), len(scope.info.heads)
        ask(chosen[:1])
        torch.cuda.reset_peak_memory_stats()
        ours, found = seconds(partial(ask, "head"), RUNS)
        peak = torch.cuda.max_memory_allocated() / 2**30
        plain, slow = seconds(partial(ask, chosen, method="plain"), 1)
        base, _ = seconds(partial(ask, chosen[:1], method="plain"), 1)
        each = (plain - base) / (len(chosen) - 1)
        columns = [found.variants.index(variant) for variant in chosen]
        distance = np.abs(found.values["logit_difference"][:, columns] - slow.values["logit_difference"]).max()
        rows.append(
            {
                "T": tokens,
                "heads": all_heads,
                "one prefill, s": ours,
                "a forward each, s (scaled)": each * all_heads,
                "one forward, s": each,
                "faster": each * all_heads / ours,
                "peak, GiB": peak,
                "largest difference, logits": float(distance),
                "drift, logits": found.drift,
            }
        )
        text = f"{head}\n\n{table(rows)}"
        print(text, flush=True)
        if options.out:
            options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
