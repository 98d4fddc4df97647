"""The embedded model on the CPU: time and peak memory of a whole collection, beside a plain and an eager forward.

Every figure is taken in a fresh process: seconds are the median of three calls after one to warm up (one call at
8,192 tokens), memory is how far the resident set (VmHWM, Linux) rose above its size with the model loaded.

usage: python kernels/benchmarks/pocket_cpu.py [--tokens 1024 2048 4096 8192] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORK = ("plain", "collect", "eager")
EAGER_LIMIT = 4096


def resident(field: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def work(kind: str, tokens: int) -> Callable[[], Any]:
    """Load the model and return what is to be measured."""
    import torch

    import attnscope
    from attnscope.engine.batches import make_batch
    from attnscope.engine.collect import collect
    from attnscope.report_plan import TEXT_COLLECTORS
    from attnscope.tasks.text import Text

    torch.set_num_threads(2)
    scope = attnscope.load(device="cpu")
    prompts = Text(n=1, length=tokens).build(scope.tokenizer)
    if kind == "collect":
        return lambda: collect(scope, prompts, TEXT_COLLECTORS)
    batch = make_batch(prompts, [0], "cpu")
    if kind == "plain":
        return torch.no_grad()(lambda: scope.run(batch))
    scope.model.set_attn_implementation("eager")
    return torch.no_grad()(lambda: scope.model(batch.input_ids, output_attentions=True).attentions)


def measure(kind: str, tokens: int) -> dict[str, float]:
    """Run in a process of its own."""
    call = work(kind, tokens)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    call()
    peak = resident("VmHWM") - before
    seconds = []
    for _ in range(1 if tokens > EAGER_LIMIT else 3):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return {"s": statistics.median(seconds), "mib": peak}


def run(lengths: list[int]) -> list[dict[str, Any]]:
    """Return one row a length."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for tokens in lengths:
        row: dict[str, Any] = {"T": tokens}
        for kind in WORK:
            if kind == "eager" and tokens > EAGER_LIMIT:
                continue
            with context.Pool(1) as pool:
                found = pool.apply(measure, (kind, tokens))
            row |= {f"{kind}_{unit}": value for unit, value in found.items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as markdown."""
    columns = ["T", *(f"{kind}_{unit}" for unit in ("s", "mib") for kind in WORK)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---:|" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.3g}" if c != "T" and c in row else str(row.get(c, "–")) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = f"{platform.machine()}, 2 threads, float32\n\n{table(run(options.tokens))}\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
