"""What the GPU benchmarks share: shapes, tensors, timing, and floors from what this GPU was measured to do."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

LEAST_RUNS, MOST_RUNS, LEAST_MS = 3, 20, 150.0
EXPONENTIALS = 16
"""Special functions that one multiprocessor of an Ampere or Hopper GPU starts in a clock."""


@dataclass(frozen=True)
class Shape:
    """Attention of one layer of a model, in bfloat16, causal."""

    heads: int
    kv_heads: int
    head_dim: int


SHAPES = {
    "Llama-3.1-8B": Shape(32, 8, 128),
    "Qwen3-0.6B": Shape(16, 8, 128),
    "Qwen3-32B": Shape(64, 8, 128),
    "GPT-2": Shape(12, 12, 64),
}


def make_call(shape: Shape, tokens: int, batch: int = 1) -> AttentionCall:
    """Return a layer's inputs, as views of `[B, T, H, D]` as models hand them over."""
    random = torch.Generator("cuda").manual_seed(tokens)

    def heads(count: int, size: float) -> Tensor:
        drawn = torch.randn(batch, tokens, count, shape.head_dim, generator=random, device="cuda")
        return (size * drawn).to(torch.bfloat16).transpose(1, 2)

    q, k, v = heads(shape.heads, 2.0), heads(shape.kv_heads, 1.0), heads(shape.kv_heads, 1.0)
    return AttentionCall(layer=0, q=q, k=k, v=v, scale=shape.head_dim**-0.5)


def median_ms(step: Callable[[], object], least_ms: float = LEAST_MS) -> float:
    """Return the median milliseconds of one of several runs in a row on the GPU, after warm-up."""
    step(), step()
    first, second = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    second.record()
    second.synchronize()
    runs = min(MOST_RUNS, max(LEAST_RUNS, round(least_ms / first.elapsed_time(second))))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    events[0].record()
    for event in events[1:]:  # nothing waits in between, as in a model: launches hide behind the run before
        step()
        event.record()
    events[-1].synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in pairwise(events))


def peak_mib(step: Callable[[], object]) -> float:
    """Return how many MiB one run allocates at its highest, its results included."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@dataclass(frozen=True)
class Machine:
    """What this GPU reaches: bytes a ms of a copy, operations a ms of a large product, exponentials a ms counted."""

    bytes_ms: float
    operations_ms: float
    exponentials_ms: float
    line: str

    def floor(self, call: AttentionCall, products: int) -> tuple[float, float]:
        """Return the least ms for `products` T×T products of every head: by bytes, and by operations.

        Causal, so half of each T×T; one exponential a pair of a query and a key. Bytes: q, k, v and z once.
        """
        b, h, t, d = call.q.shape
        pairs = b * h * t * (t + 1) / 2
        moved = 2 * call.q.numel() + call.k.numel() + call.v.numel()
        work = max(2 * d * products * pairs / self.operations_ms, pairs / self.exponentials_ms)
        return 2 * moved / self.bytes_ms, work


def measure() -> Machine:
    """Measure a copy of 2 GiB and a product of 8192³ in bfloat16."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    bytes_ms = 2 * source.numel() / median_ms(lambda: target.copy_(source))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    operations_ms = 2 * 8192**3 / median_ms(lambda: torch.mm(a, b, out=out), 500)
    for _ in range(50):
        torch.mm(a, b, out=out)
    clock = torch.cuda.clock_rate() * 1e3  # cycles a ms, while the products still run
    torch.cuda.synchronize()
    properties = torch.cuda.get_device_properties(0)
    exponentials_ms = EXPONENTIALS * properties.multi_processor_count * clock
    try:
        import triton

        version = triton.__version__
    except ModuleNotFoundError:
        version = "absent"
    line = (
        f"{properties.name}, torch {torch.__version__}, triton {version}, Python {platform.python_version()}; "
        f"measured here: copy {bytes_ms / 1e9:.2f} TB/s, bfloat16 product {operations_ms / 1e9:.0f} TFLOP/s, "
        f"SM clock {clock / 1e6:.2f} GHz, hence {exponentials_ms / 1e9:.2f} T exponentials/s"
    )
    return Machine(bytes_ms, operations_ms, exponentials_ms, line)


def table(rows: list[dict[str, object]]) -> str:
    """Return rows as a markdown table; None is –, floats have three digits."""
    names = list(rows[0])
    head = "| " + " | ".join(names) + " |\n|" + "---:|" * len(names)
    return "\n".join([head, *("| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows), ""])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
