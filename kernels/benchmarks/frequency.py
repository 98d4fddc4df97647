"""Time of contextual agreement of one layer: `torch`, `triton` and the naive way, on the same tensors.

`naive` is what one writes first: every partial logit at once, `[rows, chunks, keys]`, and one topk; it is left out
where that tensor alone exceeds LARGEST bytes. `triton` runs on CUDA only. Correctness comes first: no time is reported
unless all agree with float64. The floor is one read of K at the bandwidth that a copy reaches here: the least that any
method must move. Medians after warm-up; queries evenly spread over the prompt.

Run: python kernels/benchmarks/frequency.py [--device cpu|cuda] [--tokens N …] [--out FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall
from attnscope_kernels.frequency import contextual_agreement

KEYS = 256
GATE_TOKENS, GATE_KEYS = 600, 50
REPEATS, LEAST_SECONDS = 5, 1.0
LARGEST = {"cpu": 1 << 32, "cuda": 1 << 35}


@dataclass(frozen=True)
class Shape:
    """One layer of a model, and how many queries are sampled."""

    heads: int
    kv_heads: int
    head_dim: int
    queries: int
    dtype: torch.dtype
    tokens: tuple[int, ...]


SHAPES = {
    "cpu": Shape(8, 2, 64, 8, torch.float32, (2048, 8192)),
    "cuda": Shape(32, 8, 128, 16, torch.bfloat16, (32768, 131072)),
}


def make_call(shape: Shape, tokens: int, device: str) -> AttentionCall:
    """Return a layer whose k holds a few large keys, as real ones do; in the layout that models hand over."""
    random = torch.Generator().manual_seed(tokens)

    def heads(count: int) -> Tensor:
        drawn = torch.randn(1, tokens, count, shape.head_dim, generator=random)
        return drawn.to(device, shape.dtype).transpose(1, 2)

    q, k = heads(shape.heads), heads(shape.kv_heads)
    k[:, :, ::997] *= 3
    return AttentionCall(layer=0, q=q, k=k, v=k, scale=shape.head_dim**-0.5)


def spread(call: AttentionCall, count: int) -> Tensor:
    """Return `[1, count]` queries, the last of the prompt among them."""
    tokens = call.q.shape[2]
    return (torch.arange(1, count + 1, device=call.q.device) * tokens // count - 1)[None]


def naive(call: AttentionCall, queries: Tensor, k: int) -> Tensor:
    """Contextual agreement with every partial logit kept (causal, half pairs; ties fall anywhere)."""
    half, tokens = call.q.shape[-1] // 2, call.k.shape[2]
    q = call.q[:, :, queries[0]].float()
    keys = call.k.float().repeat_interleave(call.group_size, dim=1)
    hidden = torch.arange(tokens, device=q.device) > queries[0][:, None]
    kept = (queries[0] + 1).clamp(max=k)
    q1, q2, k1, k2 = (x.transpose(-1, -2) for x in (q[..., :half], q[..., half:], keys[..., :half], keys[..., half:]))
    parts = q1.unsqueeze(-1) * k1.unsqueeze(-2) + q2.unsqueeze(-1) * k2.unsqueeze(-2)  # [1, H, C, N, T]
    parts.masked_fill_(hidden, -torch.inf)
    whole = (q @ keys.transpose(-1, -2)).masked_fill_(hidden, -torch.inf)
    counts = torch.arange(min(k, tokens), device=q.device) < kept[:, None]
    members = torch.zeros_like(whole, dtype=torch.bool).scatter_(
        -1, whole.topk(min(k, tokens), dim=-1).indices, counts.expand(*whole.shape[:2], -1, -1)
    )
    found = parts.topk(min(k, tokens), dim=-1).indices
    both = members.unsqueeze(2).expand(*parts.shape).gather(-1, found) & counts
    return (both.sum(-1) / kept).transpose(-1, -2)


def implementations(device: str) -> dict[str, Callable[[AttentionCall, Tensor, int], Tensor]]:
    """Return what is timed on a device."""
    timed = {"torch": lambda c, q, k: contextual_agreement(c, q, k, implementation="torch"), "naive": naive}
    if device == "cuda":
        timed["triton"] = lambda c, q, k: contextual_agreement(c, q, k, implementation="triton")
    return timed


def worst_share(shape: Shape, device: str) -> float:
    """Return the largest share of entries in which any implementation differs from float64."""
    call = make_call(shape, GATE_TOKENS, device)
    queries = spread(call, 8)
    wide = call.replace(q=call.q.double(), k=call.k.double(), v=call.v.double())
    truth = contextual_agreement(wide, queries, GATE_KEYS, implementation="torch")
    found = [run(call, queries, GATE_KEYS) for run in implementations(device).values()]
    return max(float(((x - truth).abs() > 1e-6).float().mean()) for x in found)


def median_ms(step: Callable[[], object], device: str) -> float:
    """Return the median milliseconds of at least 5 runs and 1 second, after two warm-up runs."""
    seconds: list[float] = []
    step(), step()
    while len(seconds) < REPEATS or sum(seconds) < LEAST_SECONDS:
        _wait(device)
        start = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def bytes_a_ms(device: str) -> float:
    """Return the bytes that a large copy moves in a millisecond, read and written."""
    source = torch.ones(1 << (26 if device == "cpu" else 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / median_ms(lambda: target.copy_(source), device)


def run(shape: Shape, device: str) -> list[dict[str, float | None]]:
    """Return one row a length.

    Raises:
        SystemExit: an implementation disagrees with float64.
    """
    share = worst_share(shape, device)
    if not share < 0.01:
        raise SystemExit(f"no speed on a red gate: {share:.1%} of the entries differ from float64, allowed 1%")
    bandwidth = bytes_a_ms(device)
    rows: list[dict[str, float | None]] = []
    for tokens in shape.tokens:
        call = make_call(shape, tokens, device)
        queries = spread(call, shape.queries)
        row: dict[str, float | None] = {"T": tokens}
        partial_bytes = 4 * shape.heads * shape.queries * shape.head_dim // 2 * tokens
        for name, step in implementations(device).items():
            fits = name != "naive" or partial_bytes <= LARGEST[device]
            row[f"{name}_ms"], row[f"{name}_MiB"] = _measure(lambda: step(call, queries, KEYS), device, fits)  # noqa: B023
        row["floor_ms"] = call.k.numel() * call.k.element_size() / bandwidth
        row["partial_logits_MiB"] = partial_bytes / 2**20
        rows.append(row)
    return rows


def _measure(step: Callable[[], object], device: str, fits: bool) -> tuple[float | None, float | None]:
    if not fits:
        return None, None
    if device == "cpu":
        return median_ms(step, device), None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    milliseconds = median_ms(step, device)
    return milliseconds, (torch.cuda.max_memory_allocated() - before) / 2**20


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def markdown(rows: list[dict[str, float | None]], shape: Shape, device: str) -> str:
    """Return the rows as a markdown table with what they were measured on."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    head = "| " + " | ".join(names) + " |\n|" + "---:|" * len(names)
    lines = ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    where = f"{platform.machine()}, {torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device == "cuda" else where
    setting = (
        f"B 1, H {shape.heads}, G {shape.kv_heads}, D {shape.head_dim}, {shape.queries} queries, K {KEYS}, "
        f"{shape.dtype}, causal; torch {torch.__version__}, {where}; medians of ≥ {REPEATS} runs after warm-up."
    )
    return "\n".join([setting, "", head, *lines, ""])


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SHAPES), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, nargs="+", help="lengths instead of the device's own")
    parser.add_argument("--out", type=Path, help="also write the markdown here")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    shape = SHAPES[arguments.device]
    if arguments.tokens:
        shape = replace(shape, tokens=tuple(arguments.tokens))
    with torch.no_grad():
        table = markdown(run(shape, arguments.device), shape, arguments.device)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
