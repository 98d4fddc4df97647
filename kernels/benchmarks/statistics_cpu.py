"""Time and memory of attention with all head statistics on the CPU: dense eager attention against `tiled`.

Both compute z and the same statistics of every head: lse, entropy, largest weight, received mass, previous-token mass,
first-token mass, mean distance, mass by distance in log2 bins. Same process, same tensors, same threads; medians after
warm-up. Correctness comes first: no time is reported unless both agree with float64. Peak memory is the growth of the
resident set over one call at its highest, in a fresh process per row (Linux: VmHWM, reset just before the call).
The floor is one plain `scaled_dot_product_attention` forward, which yields no statistics at all.

Run: python kernels/benchmarks/statistics_cpu.py [--out FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from attnscope_kernels import AttentionCall, Result, Want, attend
from attnscope_kernels.impl._diagonals import diagonal_sums
from attnscope_kernels.testing import compare

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
TIMED = (512, 1024, 2048, 4096, 8192)
LONGEST_EAGER = 4096
REPEATS, LEAST_SECONDS = 5, 1.0
TOLERANCE = 2e-5


def make_call(length: int, dtype: torch.dtype = torch.float32) -> AttentionCall:
    """Return the benchmark's layer: batch 1, 8 query heads over 2 KV heads, head dim 64, causal."""
    random = torch.Generator().manual_seed(length)
    q = 2 * torch.randn(1, HEADS, length, HEAD_DIM, generator=random)
    k, v = (torch.randn(1, KV_HEADS, length, HEAD_DIM, generator=random) for _ in range(2))
    return AttentionCall(layer=0, q=q.to(dtype), k=k.to(dtype), v=v.to(dtype), scale=HEAD_DIM**-0.5)


def bin_edges(length: int) -> tuple[int, ...]:
    """Return 0, 1, 2, 4, … up to the length."""
    return (0, *(2**power for power in range(math.ceil(math.log2(length)) + 1)))


def make_want(length: int) -> Want:
    index = torch.arange(length)[None]
    return Want(
        lse=True,
        entropy=True,
        max_prob=True,
        received=True,
        mean_distance=True,
        mass_at={"previous": index - 1, "first": torch.zeros_like(index)},
        mass_by_distance=bin_edges(length),
    )


def eager(call: AttentionCall) -> Result:
    """Eager attention as model libraries write it, then the statistics from its matrix, without needless passes."""
    length = call.q.shape[2]
    k, v = (x.repeat_interleave(call.group_size, dim=1) for x in (call.k, call.v))
    hidden = torch.full((length, length), -math.inf).triu_(1)
    logits = torch.matmul(call.q, k.transpose(2, 3)) * call.scale + hidden
    lse = torch.logsumexp(logits, dim=-1)
    weights = torch.softmax(logits, dim=-1)
    del logits
    z = torch.matmul(weights, v)
    previous = functional.pad(weights.diagonal(-1, dim1=-2, dim2=-1), (1, 0), value=math.nan)
    position = torch.arange(length)
    distance = (position[:, None] - position).abs_().to(weights.dtype)
    offsets = diagonal_sums(weights.flatten(0, 1), weights.new_ones(HEADS, 1, length))[:, :length].flip(-1)
    edges = bin_edges(length)
    bins = [offsets[:, low:high].sum(-1) for low, high in pairwise(edges)]
    return Result(
        implementation="eager",
        output=z,
        lse=lse,
        entropy=torch.special.entr(weights).sum(-1),
        max_prob=weights.amax(-1),
        received=weights.sum(-2),
        mean_distance=(weights * distance).sum(-1),
        mass_at={"previous": previous, "first": weights[..., 0].clone()},
        mass_by_distance=torch.stack(bins, dim=-1)[None],
    )


def plain(call: AttentionCall) -> Tensor:
    """The floor: z alone."""
    return functional.scaled_dot_product_attention(
        call.q, call.k, call.v, is_causal=True, scale=call.scale, enable_gqa=True
    )


def largest_error(length: int = 512) -> float:
    """Return the largest relative error of eager and tiled against the float64 reference."""
    call, want = make_call(length), make_want(length)
    truth = attend(make_call(length, torch.float64), want, "reference")
    # The draws are made in float32, so that both calls hold the same numbers.
    results = (eager(call), attend(call, want, "tiled"))
    return max(error for result in results for error in compare(result, truth).values())


def median_ms(step: Callable[[], object]) -> float:
    """Return the median milliseconds of at least 5 runs and 1 second, after two warm-up runs."""
    step(), step()
    seconds: list[float] = []
    while len(seconds) < REPEATS or sum(seconds) < LEAST_SECONDS:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def peak_mib(length: int, implementation: str) -> float:
    """Return the growth in MiB of the maximum resident set over one call, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (length, implementation, torch.get_num_threads()))


def _growth(length: int, implementation: str, threads: int) -> float:
    torch.set_num_threads(threads)
    steps = {
        "eager": lambda c, w: eager(c),
        "tiled": lambda c, w: attend(c, w, "tiled"),
        "plain": lambda c, w: plain(c),
    }
    with torch.no_grad():
        steps[implementation](make_call(128), make_want(128))  # loads libraries and starts threads
        call, want = make_call(length), make_want(length)
        before = _highest_kib(reset=True)
        steps[implementation](call, want)
        return (_highest_kib() - before) / 1024


def _highest_kib(reset: bool = False) -> int:
    """Return the highest resident set of this process so far, in KiB; `reset` makes it the present one first."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def run() -> list[dict[str, float | None]]:
    """Return one row a length: milliseconds, ratios and MiB; None where eager is not run.

    Raises:
        SystemExit: eager or tiled disagrees with float64.
    """
    error = largest_error()
    if not error < TOLERANCE:
        raise SystemExit(f"no speed on a red gate: error {error:.1e} against float64, allowed {TOLERANCE:.0e}")
    rows: list[dict[str, float | None]] = []
    with torch.no_grad():
        for length in TIMED:
            call, want = make_call(length), make_want(length)
            dense = length <= LONGEST_EAGER
            eager_ms = median_ms(lambda call=call: eager(call)) if dense else None
            tiled_ms = median_ms(lambda call=call, want=want: attend(call, want, "tiled"))
            floor_ms = median_ms(lambda call=call: plain(call))
            rows.append(
                {
                    "T": length,
                    "eager_ms": eager_ms,
                    "tiled_ms": tiled_ms,
                    "floor_ms": floor_ms,
                    "eager_over_tiled": eager_ms / tiled_ms if eager_ms else None,
                    "tiled_over_floor": tiled_ms / floor_ms,
                    "eager_mib": peak_mib(length, "eager") if dense else None,
                    "tiled_mib": peak_mib(length, "tiled"),
                    "floor_mib": peak_mib(length, "plain"),
                }
            )
    return rows


def markdown(rows: list[dict[str, float | None]]) -> str:
    """Return the rows as a markdown table with what they were measured on."""
    head = "| " + " | ".join(rows[0]) + " |\n|" + "---:|" * len(rows[0])
    lines = ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows]
    setting = (
        f"B 1, H {HEADS}, G {KV_HEADS}, D {HEAD_DIM}, causal, float32, one layer; torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} threads; medians of ≥ {REPEATS} runs after warm-up; "
        "peak memory: growth of the resident set at its highest during one call, in a fresh process."
    )
    return "\n".join([setting, "", head, *lines, ""])


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the markdown here")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    table = markdown(run())
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
