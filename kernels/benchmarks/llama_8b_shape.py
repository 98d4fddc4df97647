"""Every head statistic of an 8B-shaped model (random weights) at long context: time and peak memory on one GPU.

usage: python kernels/benchmarks/llama_8b_shape.py [--tokens 8192 32768] [--implementation tiled] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import attnscope
from attnscope.collectors import collectors
from attnscope.engine.batches import make_batch
from attnscope.engine.collect import collect
from attnscope.report_plan import TEXT_COLLECTORS

SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}


class Prompts:
    """One random prompt."""

    column_names = ["input_ids"]

    def __init__(self, tokens: int) -> None:
        self.ids = torch.randint(0, 1000, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: Any) -> Any:
        return [self.ids] if isinstance(key, str) else {"input_ids": [self.ids]}


def measure(tokens: int, implementation: str, scope: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Time one plain forward and one collection, and read the peak memory of each."""
    prompts = Prompts(tokens)
    batch = make_batch(prompts, [0], scope.device)

    def timed(work: Any) -> tuple[float, float, Any]:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        result = work()
        torch.cuda.synchronize()
        return time.perf_counter() - begin, torch.cuda.max_memory_allocated() / 2**30, result

    with torch.no_grad():
        timed(lambda: scope.run(batch))
        plain, plain_peak, _ = timed(lambda: scope.run(batch))
    chosen = [collectors.get(name)() for name in names]
    seconds, peak, data = timed(lambda: collect(scope, prompts, chosen, implementation=implementation))
    return {
        "tokens": tokens,
        "implementation": data.attrs["implementation"],
        "collectors": len(chosen),
        "plain_s": round(plain, 3),
        "collect_s": round(seconds, 3),
        "ratio": round(seconds / plain, 2),
        "plain_peak_GiB": round(plain_peak, 2),
        "collect_peak_GiB": round(peak, 2),
        "mass_by_distance_sums_to": round(float(data.mass_by_distance.sum("distance_bin").mean()), 5),
        "entropy_mean_nats": round(float(data.entropy.mean()), 4),
    }


def main() -> None:
    """Print one JSON line a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--implementation", default="auto")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": options.layers})).eval()
    torch.set_default_dtype(default)
    scope = attnscope.load(model)
    parameters = sum(p.numel() for p in model.parameters()) / 1e9
    head = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "parameters_billion": round(parameters, 2),
    }
    lines = [json.dumps(head)]
    print(lines[0], flush=True)
    for tokens in options.tokens:
        lines.append(json.dumps(measure(tokens, options.implementation, scope, TEXT_COLLECTORS)))
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
