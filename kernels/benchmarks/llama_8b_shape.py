"""An 8B-shaped model with random weights at long context on one GPU: a plain prefill, every head statistic, a screen.

The same model and prompt in one process. `plain` is the model's own forward without logits, its attention pinned to
cuDNN (the fastest that torch has here); `exact` adds every collector of a report's text section, `screen` those of
`attnscope report --mode screen`. Medians of three runs after a warm-up of one layer's kernels; memory is the peak of
what torch allocated. A screen's keys are checked against exact sums, with sinks of many strengths put in.

usage: python kernels/benchmarks/llama_8b_shape.py [--tokens 8192 32768 131072] [--config llama-3.1-8b] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any

import torch
from _gpu import table
from torch.nn.attention import SDPBackend, sdpa_kernel

import attnscope
from attnscope.engine.batches import make_batch
from attnscope.engine.collect import collect
from attnscope.report_plan import ReportPlan, sections
from attnscope_kernels import AttentionCall, Screen, Want, attend

PLACES, STRONGEST = 64, 12.0
SHARE = 0.01


class Prompts:
    """One random prompt."""

    column_names = ["input_ids"]

    def __init__(self, tokens: int) -> None:
        self.ids = torch.randint(0, 1000, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: Any) -> Any:
        return [self.ids] if isinstance(key, str) else {"input_ids": [self.ids]}


LONG = 65536
"""Above this many tokens every fourth layer is enough to count what a screen misses."""
RUNS = 3


def timed(work: Callable[[], Any], warm: Callable[[], Any]) -> tuple[float, float]:
    """Return the median seconds and the peak GiB of RUNS runs after a warm-up."""
    warm()
    seconds = []
    for _ in range(RUNS):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**30


def measure(scope: Any, tokens: int) -> dict[str, object]:
    """Return one row of the table."""
    prompts = Prompts(tokens)
    batch = make_batch(prompts, [0], scope.device)
    chosen = {
        mode: sections(ReportPlan(prompts=1, context=tokens, mode=mode), scope.info, False)[0]
        for mode in ("exact", "screen")
    }

    def plain() -> None:
        with torch.no_grad(), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            scope.run(batch)

    def measured(mode: str) -> None:
        collect(scope, prompts, chosen[mode].collectors, screen=chosen[mode].screen)

    def kernels_of(mode: str) -> None:
        wants = (c.want(batch, scope.info) for c in chosen[mode].collectors if c.sees == "attention")
        attend(_one_layer(scope, tokens), reduce(or_, wants, Want(screen=chosen[mode].screen)))

    plain()
    cudnn, peak = timed(plain, lambda: None)
    exact, exact_peak = timed(partial(measured, "exact"), partial(kernels_of, "exact"))
    screen, screen_peak = timed(partial(measured, "screen"), partial(kernels_of, "screen"))
    return {
        "T": tokens,
        "plain, s": cudnn,
        "exact, s": exact,
        "screen, s": screen,
        "exact / plain": exact / cudnn,
        "screen / plain": screen / cudnn,
        "plain peak, GiB": peak,
        "exact extra, %": 100 * (exact_peak / peak - 1),
        "screen extra, %": 100 * (screen_peak / peak - 1),
        **missed(scope, batch),
    }


def _one_layer(scope: Any, tokens: int) -> AttentionCall:
    info = scope.info
    q, k, v = (
        torch.randn(1, tokens, heads, info.head_dim, device=scope.device, dtype=torch.bfloat16).transpose(1, 2)
        for heads in (info.n_heads, info.n_kv_heads, info.n_kv_heads)
    )
    return AttentionCall(layer=0, q=q, k=k, v=v, scale=info.head_dim**-0.5)


def missed(scope: Any, batch: Any) -> dict[str, object]:
    """Count, over layers and heads, the keys above 1% of received mass, and those that a screen does not find.

    Every layer, or every fourth one above `LONG` tokens.
    """
    tokens = batch.input_ids.shape[1]
    random = torch.Generator().manual_seed(1)
    places = torch.randint(0, tokens, (PLACES,), generator=random).to(scope.device)
    above = lost = kept = keys = 0

    def tap(call: AttentionCall) -> torch.Tensor:
        nonlocal above, lost, kept, keys
        if tokens > LONG and call.layer % 4:
            z = attend(call).output
            assert z is not None
            return z
        bias = torch.zeros(1, call.q.shape[1], tokens, device=call.q.device)
        bias[..., places] = torch.linspace(0, STRONGEST, PLACES, device=call.q.device)
        sinks = call.replace(key_bias=bias)
        exact = attend(sinks, Want(received=True))
        screened = attend(sinks, Want(output=False, received=True, screen=Screen()))
        assert exact.received is not None
        assert exact.output is not None
        assert screened.received_exact is not None
        share = exact.received / torch.arange(tokens, 0, -1, device=call.q.device)
        large = share >= SHARE
        above += int(large.sum())
        lost += int((large & ~screened.received_exact[:, None]).sum())
        kept += int(screened.received_exact.sum())
        keys += tokens
        return exact.output

    with torch.no_grad(), scope.attach(tap):
        scope.run(batch)
    return {"keys above 1%": above, "missed by the screen": lost, "summed exactly, %": 100 * kept / keys}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--config", default="llama-3.1-8b")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scope = attnscope.load(config=options.config, random_weights=True, device="cuda", dtype="bfloat16")
    properties = torch.cuda.get_device_properties(0)
    head = f"{properties.name}, torch {torch.__version__}, {options.config}, random weights, bfloat16, one prompt"
    print(head, flush=True)
    rows = []
    for tokens in options.tokens:
        rows.append(measure(scope, tokens))
        text = f"{head}\n\n{table(rows)}"
        print(table(rows[-1:]), flush=True)
        if options.out:
            options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
