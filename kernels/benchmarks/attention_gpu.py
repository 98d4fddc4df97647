"""One attention layer on a GPU: every statistic against the forwards of cuDNN, FlashAttention-2, FlexAttention, eager.

Same process, same tensors, medians of CUDA events after warm-up. Correctness comes first: no time is reported unless
everything agrees with float64. Floors: bytes (q, k, v and z moved once at the bandwidth of a copy) and operations (the
products at the rate of a large product, or the exponentials at the hardware's own rate, whichever takes longer), both
from what is measured on this GPU before.

Run: python kernels/benchmarks/attention_gpu.py [--shapes NAME …] [--tokens N …] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from _gpu import SHAPES, Machine, Shape, make_call, measure, median_ms, peak_mib, table
from _peers import Flex, cudnn, eager, flash2

from attnscope_kernels import AttentionCall, HeadOutput, Knockout, Screen, Want, attend, attention_tile
from attnscope_kernels.impl._triton._fused import norm_of
from attnscope_kernels.impl._triton._operands import operands_of
from attnscope_kernels.impl._triton.forward import forward
from attnscope_kernels.impl._triton.weights import weights
from attnscope_kernels.testing import worse_than_reference

TOKENS = (2048, 8192, 32768, 131072)
GATE, TOLERANCE = 1000, 2e-2
OWN = Want(lse=True)
"""What our own forward gives in one pass, edited or not."""


def everything(call: AttentionCall) -> Want:
    """What a report asks of every layer."""
    tq = call.q.shape[2]
    steps = (64 * 2 ** (step / 8) for step in range(1, 33)), (1024 * 2 ** (step / 2) for step in range(1, 21))
    edges = sorted({*range(65), *(round(edge) for part in steps for edge in part), tq})
    return Want(
        lse=True,
        entropy=True,
        max_prob=True,
        received=True,
        mass_at={"first": torch.zeros(call.q.shape[0], tq, dtype=torch.int64, device="cuda")},
        mass_by_distance=tuple(edge for edge in edges if edge <= tq),
    )


def screened(call: AttentionCall) -> Want:
    """What a report in screen mode asks: sampled rows, exact sinks, near distances."""
    return replace(everything(call), mass_by_distance=tuple(range(65)), screen=Screen())


def rows_and_received() -> Want:
    return Want(lse=True, entropy=True, max_prob=True, received=True)


def gate(shape: Shape, flex: bool) -> str | None:
    """Return what is wrong at a short length, or None."""
    call = make_call(shape, GATE)
    wants = [(call, want) for want in (rows_and_received(), everything(call), Want(output=False, received=True))]
    for chosen, want in (*wants, *((edit, OWN) for edit in edits(call).values())):
        worse = worse_than_reference(attend(chosen, want, "triton"), chosen, want, 5e-6)
        if worse:
            return f"triton: {worse}"
    truth = attend(call, Want(), "reference").output
    assert truth is not None
    peers: dict[str, Callable[[AttentionCall], torch.Tensor]] = {"cuDNN": cudnn, "FA2": flash2}
    if flex:
        peers["Flex"] = Flex(call)
    for name, peer in peers.items():
        error = float((peer(call) - truth).abs().max())
        if not error < TOLERANCE * float(truth.abs().max()):
            return f"{name}: {error}"
    return None


def layer(shape: Shape, tokens: int, machine: Machine, flex: bool) -> dict[str, object]:
    """Return one row: milliseconds of each contender, the ratios that matter, the floors."""
    call = make_call(shape, tokens)
    operands = operands_of(call)
    lse = attend(call, Want(output=False, lse=True), "triton").lse
    assert lse is not None
    norm = norm_of(call, lse)
    library = median_ms(lambda: cudnn(call))
    alone = median_ms(lambda: weights(operands, norm, received=True))
    pass_ = median_ms(lambda: weights(operands, norm, received=True, entropy=True, max_prob=True))
    full = everything(call)
    every = median_ms(lambda: attend(call, full, "triton"))
    sampled = screened(call)
    screen = median_ms(lambda: attend(call, sampled, "triton"))
    bytes_floor, products = machine.floor(call, 2)
    return {
        "T": tokens,
        "cuDNN": library,
        "FA2": median_ms(lambda: flash2(call)),
        "Flex+lse": _or_none(lambda: median_ms(partial(Flex(call), call))) if flex else None,
        "eager": _or_none(lambda: median_ms(lambda: eager(call))),
        "z + rows + received": median_ms(lambda: attend(call, rows_and_received(), "triton")),
        "z + everything": every,
        "z + screen": screen,
        "received / cuDNN": alone / library,
        "rows + received / cuDNN": pass_ / library,
        "everything / cuDNN": every / library,
        "screen / cuDNN": screen / library,
        "floor z: bytes": bytes_floor,
        "floor z: operations": products,
        "floor received: operations": machine.floor(call, 1)[1],
        "everything, MiB": peak_mib(lambda: attend(call, full, "triton")),
        "eager, MiB": _or_none(lambda: peak_mib(lambda: eager(call))),
    }


def edits(call: AttentionCall) -> dict[str, AttentionCall]:
    """Edited calls, by what is edited."""
    heads, tokens = call.q.shape[1], call.q.shape[2]
    chosen, some = torch.arange(heads) < 8, torch.zeros(1, tokens, dtype=torch.bool)
    some[:, torch.randperm(tokens, generator=torch.Generator().manual_seed(0))[:64]] = True
    every = torch.ones(1, tokens, dtype=torch.bool, device="cuda")
    bias = torch.zeros(1, heads, tokens, device="cuda")
    bias[:, :8, 0] = -2.0
    return {
        "8 heads × 64 keys knocked out": call.replace(knockouts=(Knockout(chosen.cuda(), every, some.cuda()),)),
        "sink of 8 heads biased": call.replace(key_bias=bias),
    }


def edited(shape: Shape, tokens: int) -> dict[str, object]:
    """Return one row: edited forwards over our own unedited one, tiles and maps."""
    call = make_call(shape, tokens)
    stopped = call.replace(head_output=HeadOutput((torch.arange(shape.heads, device="cuda") >= 8).float()))
    plain = median_ms(lambda: forward(operands_of(call), OWN))
    library = median_ms(lambda: cudnn(call))
    last, middle = slice(tokens - 512, tokens), [shape.heads // 2]
    one, map_ = call.select([0], slice(None)), Want(output=False, pooled_map=(512, 512))
    return {
        "T": tokens,
        "cuDNN": library,
        "ours, unedited": plain,
        **{
            f"{name} / unedited": median_ms(lambda edit=edit: forward(operands_of(edit), OWN)) / plain  # type: ignore[misc]
            for name, edit in edits(call).items()
        },
        "8 heads to zero / cuDNN": median_ms(lambda: attend(stopped, Want())) / library,
        "tile 512×512, ms": median_ms(lambda: attention_tile(call, middle, last, slice(0, 512), "triton")),
        "map 512×512 of one head, ms": median_ms(lambda: attend(one, map_, "triton")),
    }


def _or_none(step: Callable[[], float]) -> float | str:
    try:
        return step()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--flex", action=argparse.BooleanOptionalAction, default=True, help="its compiler is slow")
    parser.add_argument("--out", type=Path, help="also write the markdown here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this benchmark needs one; statistics_cpu.py runs on a CPU")
    machine = measure()
    parts = [machine.line, ""]
    print(machine.line, flush=True)
    with torch.no_grad():
        for name in arguments.shapes:
            wrong = gate(SHAPES[name], arguments.flex)
            if wrong:
                raise SystemExit(f"no speed on a red gate: {name}: {wrong}")
            rows = [layer(SHAPES[name], tokens, machine, arguments.flex) for tokens in arguments.tokens]
            changed = [edited(SHAPES[name], tokens) for tokens in arguments.tokens]
            parts += [f"### {name}", "", table(rows), table(changed)]
            print("\n".join(parts[-4:]), flush=True)
            if arguments.out:
                arguments.out.write_text("\n".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
