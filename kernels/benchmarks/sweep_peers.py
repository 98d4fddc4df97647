"""Activation patching of every head of a GPT-2-small-shaped model, against TransformerLens's own sweep.

The same weights, token ids, metric and direction (clean values into the corrupt run) in one process; TransformerLens
gets a copy of the model, because its bridge rewires the object that it is given. Token ids are drawn at random in the
form of IOI prompts of 15 tokens: `s2` differs at one token (as in TransformerLens's demonstration), `abc` at three.
Values must agree to 1e-5 before any time is reported.

Needs transformer-lens. usage: python kernels/benchmarks/sweep_peers.py [--prompts 8] [--quick] [--out FILE]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
import transformers
from _gpu import table

import attnscope
from attnscope.engine.attribution.patching import attribute
from attnscope.engine.sweep.alternatives import OtherRun
from attnscope.engine.sweep.run import sweep

TOKENS, TOLERANCE = 15, 1e-5
CHANGED = {"s2": (10,), "abc": (2, 4, 10)}


def model() -> Any:
    """GPT-2 small with random weights."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(architectures=["GPT2LMHeadModel"])
    return transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)


def pairs(n: int, corruption: str) -> datasets.Dataset:
    """Pairs in the form of IOI prompts."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(n):
        clean = torch.randint(1000, 40_000, (TOKENS,), generator=generator).tolist()
        clean[0] = 50256
        clean[10] = clean[4]
        corrupt = list(clean)
        for place in CHANGED[corruption]:
            corrupt[place] = int(torch.randint(1000, 40_000, (1,), generator=generator))
        rows.append({"input_ids": clean, "corrupt_ids": corrupt, "answer_ids": [clean[2]], "wrong_ids": [clean[4]]})
    return datasets.Dataset.from_list(rows)


def tokenizer_folder(folder: str) -> Any:
    """A tokenizer on disk, which the bridge insists on; no text goes through it."""
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({"<|endoftext|>": 50256, "a": 0}, unk_token="a"))
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    wrapped.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def bridged(original: Any, folder: str) -> Any:
    """The model as TransformerLens runs it."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        "gpt2", hf_model=copy.deepcopy(original), tokenizer=tokenizer_folder(folder), device="cpu"
    )


def theirs(bridge: Any, prompts: datasets.Dataset, positions: list[int]) -> np.ndarray:
    """Return TransformerLens's sweep `[layers, positions, heads]`: the mean logit difference over prompts."""
    from transformer_lens import patching

    clean, corrupt = (torch.tensor(prompts[name]) for name in ("input_ids", "corrupt_ids"))
    right, wrong = (torch.tensor(prompts[name])[:, 0] for name in ("answer_ids", "wrong_ids"))

    def metric(logits: torch.Tensor) -> torch.Tensor:
        last = logits[:, -1]
        return (last.gather(1, right[:, None]) - last.gather(1, wrong[:, None])).mean()

    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        cells = pd.DataFrame(list(product(range(12), positions, range(12))), columns=["layer", "pos", "head"])
        found = patching.generic_activation_patch(
            bridge, corrupt, cache, metric, patching.layer_pos_head_vector_patch_setter, "z", index_df=cells
        )
    return found.view(12, len(positions), 12).numpy()


def ours(scope: Any, prompts: datasets.Dataset, positions: list[int]) -> np.ndarray:
    """Return our sweep, the same."""
    where: Any = "each" if len(positions) > 1 else positions
    found = sweep(
        scope,
        prompts,
        "head",
        metrics="logit_difference",
        alternative=OtherRun("input_ids"),
        base="corrupt_ids",
        positions=where,
    ).values["logit_difference"]
    mean = found.mean(0).reshape(12, 12, -1)
    return mean.transpose(0, 2, 1)


def timed(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Return the median seconds and the last result."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken), result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one position alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    original = model()
    scope = attnscope.load(original)
    with tempfile.TemporaryDirectory() as folder:
        bridge = bridged(original, folder)
    head = (
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__},"
        f" GPT-2 small shape, {options.prompts} prompts of {TOKENS} tokens, float32"
    )
    print(head, flush=True)
    rows: list[dict[str, object]] = []
    kinds = [("one position", [TOKENS - 1])] + ([] if options.quick else [("every position", list(range(TOKENS)))])
    for (what, positions), corruption in product(kinds, CHANGED):
        prompts = pairs(options.prompts, corruption)
        ours(scope, prompts, positions)
        fast, mine = timed(partial(ours, scope, prompts, positions), 3)
        slow, other = timed(partial(theirs, bridge, prompts, positions), 1)
        gap = float(np.abs(mine - other).max())
        if gap > TOLERANCE:
            sys.exit(f"red gate: {what}, {corruption}: values differ by {gap:.1e}")
        screen, found = timed(
            partial(
                attribute,
                scope,
                prompts,
                metric="logit_difference",
                alternative=OtherRun("input_ids"),
                base="corrupt_ids",
            ),
            3,
        )
        rows.append(
            {
                "heads ×": what,
                "pairs": corruption,
                "cells": mine.size,
                "attnscope, s": fast,
                "TransformerLens, s": slow,
                "faster": slow / fast,
                "largest difference": gap,
                "largest effect": float(np.abs(mine - mine.mean()).max()),
                "attribution of all heads, s": screen,
                "its forwards": found.forwards,
            }
        )
        text = f"{head}\n\n{table(rows)}"
        print(text, flush=True)
        if options.out:
            options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
