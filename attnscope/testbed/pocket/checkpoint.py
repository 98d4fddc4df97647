"""Stop and go on: weights, AdamW moments and counters, in safetensors and JSON only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"


def save(folder: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write a checkpoint; the state file comes last, so a folder that has one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STATE).unlink(missing_ok=True)
    named = dict(model.named_parameters())
    save_file({n: p.detach().float().contiguous().cpu() for n, p in named.items()}, folder / WEIGHTS)
    moments = {}
    for n, p in named.items():
        for key, value in optimiser.state.get(p, {}).items():
            moments[f"{key}|{n}"] = value.detach().clone().contiguous().cpu()
    save_file(moments, folder / MOMENTS)
    (folder / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Read a checkpoint into model and optimiser; None where there is none."""
    if not (folder / STATE).exists():
        return None
    named = dict(model.named_parameters())
    with torch.no_grad():
        for n, value in load_file(folder / WEIGHTS).items():
            named[n].copy_(value)
    if (folder / MOMENTS).exists():
        for name, value in load_file(folder / MOMENTS).items():
            key, n = name.split("|", 1)
            p = named[n]
            place = value if key == "step" and p.device.type == "cpu" else value.to(p.device)
            optimiser.state[p][key] = place
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def export(folder: Path, model: Any, shard: str = "5GB") -> None:
    """Write the model as it ships: bf16, in the layout that `from_pretrained` reads."""
    from transformers import LlamaForCausalLM

    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict({k: v.detach().to("cpu", torch.bfloat16) for k, v in model.state_dict().items()})
    copy.config.dtype = torch.bfloat16
    copy.save_pretrained(folder, max_shard_size=shard)
