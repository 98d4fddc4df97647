"""What the collectors cost a layer beside attention itself: time, peak extra memory and transfers of every `fold`.

One layer of an 8B-shaped model (32 heads over 8 KV heads, head dim 128, M 4096) with made-up reductions, so that no
attention runs. Medians of five calls after two; memory is what the call holds at its highest beside what was there.
The residual statistics are first checked against float64 on the first 4,096 tokens: no time on a red gate.

usage: python kernels/benchmarks/collectors_fold.py [--tokens 8192 131072] [--device cuda] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import attnscope
from attnscope.collectors import collectors
from attnscope.collectors._base import AttentionSeen, Collector, ResidualSeen
from attnscope.core.batch import Batch
from attnscope.core.model_info import ModelInfo
from attnscope.engine.folds import Folds
from attnscope.report_plan import TEXT_COLLECTORS
from attnscope_kernels import AttentionCall, Result
from attnscope_kernels.residual import residual_statistics

HEADS, KV_HEADS, HEAD_DIM, MODEL_DIM = 32, 8, 128, 4096
NAMES = (*TEXT_COLLECTORS, "sink_rate", "positional_share")


def shape(device: str, dtype: torch.dtype) -> ModelInfo:
    """Describe a model of one such layer."""
    known = {"model_id": "8b-shape", "n_layers": 1, "attention_layers": (0,), "n_heads": HEADS, "n_kv_heads": KV_HEADS}
    known |= {"head_dim": HEAD_DIM, "d_model": MODEL_DIM, "windows": (None,), "context_length": None}
    return attnscope.load(backend="toy").info.model_copy(update=known | {"device": device, "dtype": str(dtype)})


def layer(tokens: int, device: str, dtype: torch.dtype) -> tuple[AttentionSeen, ResidualSeen]:
    """Make one layer's call, reductions and residual stream up."""
    info = shape(device, dtype)
    ids = torch.zeros(1, tokens, dtype=torch.long, device=device)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0,), 1)

    def some(*size: int) -> Tensor:
        return torch.rand(size, device=device)

    k, v = (torch.randn(1, KV_HEADS, tokens, HEAD_DIM, device=device, dtype=dtype) for _ in range(2))
    q = k[:, :, :1].repeat_interleave(HEADS // KV_HEADS, 1).expand(-1, -1, tokens, -1)
    per_query = [some(1, HEADS, tokens) for _ in range(4)]
    result = Result(
        "made up",
        lse=per_query[0],
        entropy=per_query[1],
        max_prob=per_query[2],
        received=some(1, HEADS, tokens),
        value_norm=some(1, KV_HEADS, tokens),
        mass_at={"first_token": per_query[3]},
        mass_by_distance=some(1, HEADS, len(batch.distance_edges) - 1),
    )
    call = AttentionCall(layer=0, q=q, k=k, v=v, scale=1.0)
    projection = torch.randn(MODEL_DIM, HEADS * HEAD_DIM, device=device, dtype=dtype)  # as a Linear holds it
    stream = torch.randn(1, tokens, MODEL_DIM, device=device, dtype=dtype)
    seen = AttentionSeen(
        info, batch, 0, call, result, lambda: projection.view(MODEL_DIM, HEADS, HEAD_DIM).movedim(0, 2)
    )
    return seen, ResidualSeen(info, batch, 0, "block_output", stream)


def timed(work: Callable[[], object], device: str) -> dict[str, float]:
    """Return milliseconds, MiB held at the highest, and how often the device was waited for."""
    cuda = device == "cuda"
    seconds, waits = [], 0
    for number in range(7):
        if cuda:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        if cuda and number == 0:
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
            torch.cuda.set_sync_debug_mode("default")
            waits = sum("called a synchronizing" in str(warning.message) for warning in caught)
        else:
            work()
        if cuda:
            torch.cuda.synchronize()
        if number >= 2:
            seconds.append(time.perf_counter() - begin)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else float("nan")
    return {"ms": 1000 * statistics.median(seconds), "mib": peak, "waits": waits}


def check(stream: Tensor) -> None:
    """Stop where the residual statistics are not those of float64."""
    x = stream[:, :4096]
    found, truth = residual_statistics(x), residual_statistics(x.double(), implementation="torch")
    for name in ("norm", "max_abs", "argmax", "dimension_sum_abs"):
        torch.testing.assert_close(getattr(found, name).double(), getattr(truth, name).double(), rtol=2e-6, atol=0.0)


def rows(tokens: int, device: str, dtype: torch.dtype) -> list[str]:
    """Return one line a collector, all attention collectors together, and the residual ones with their one read."""
    seen, residual = layer(tokens, device, dtype)
    check(residual.stream)
    chosen: list[Collector] = [collectors.get(name)() for name in NAMES]
    states = {c.name: c.init(seen.info, 1) for c in chosen}

    def fold(some: list[Collector]) -> None:
        fresh = AttentionSeen(seen.info, seen.batch, 0, seen.call, seen.result, seen.output_projection)
        stream = ResidualSeen(seen.info, seen.batch, 0, residual.site, residual.stream)
        folds = Folds(some, states)
        if folds.attention:
            folds.add(fresh)
        if folds.residual:
            folds.add(stream)
        folds.finish()

    parts = {c.name: [c] for c in chosen}
    parts["all on attention"] = [c for c in chosen if c.sees == "attention"]
    parts["all on the residual stream"] = [c for c in chosen if c.sees == "residual"]
    lines = []
    for name, some in parts.items():
        found = timed(lambda some=some: fold(some), device)  # type: ignore[misc]
        lines.append(f"| {tokens:,} | {name} | {found['ms']:.3g} | {found['mib']:.3g} | {found['waits']} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 131072])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = [f"{where}, {dtype}", "", "| T | fold of | ms | MiB held | waits |", "|---:|---|---:|---:|---:|"]
    print("\n".join(table), flush=True)
    for tokens in options.tokens:
        table += rows(tokens, options.device, dtype)
    if options.out:
        options.out.write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
