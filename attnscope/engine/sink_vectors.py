"""The residual stream, and what every module adds to it, at chosen positions: who writes a sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope, Site

WRITES: tuple[Site, ...] = ("attention_output", "mlp_output")


@dataclass(frozen=True, eq=False)
class Vectors:
    """K positions.

    Attributes:
        embedding: `[K, M]` float32, the first block's input.
        outputs: `[K, L, M]` block outputs.
        attention: `[K, L, M]` what attention adds; None where the model does not show it.
        mlp: likewise.
    """

    embedding: np.ndarray
    outputs: np.ndarray
    attention: np.ndarray | None
    mlp: np.ndarray | None


def vectors(
    scope: Scope,
    prompts: PromptSet,
    where: Sequence[tuple[int, int]],
    *,
    writes: bool = True,
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> Vectors:
    """Read the stream at K positions (prompt, position), in one pass over their prompts.

    Embedding and all writes up to a block add up to its output.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: the model's blocks do not add attention and MLP to the stream, and `writes` are wanted.
        DeviceError: the device ran out of memory.
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    layers, width = scope.info.n_layers, scope.info.d_model
    found = {"block_output": np.zeros((len(where), layers, width), dtype=np.float32)}
    found |= {site: np.zeros_like(found["block_output"]) for site in (WRITES if writes else ())}
    embedding = np.zeros((len(where), width), dtype=np.float32)
    chosen = sorted({prompt for prompt, _ in where})
    for group in plan([lengths[i] for i in chosen], batch_tokens):
        rows = [chosen[i] for i in group]
        batch = make_batch(prompts, rows, scope.device)
        mine = [k for k, (prompt, _) in enumerate(where) if prompt in rows]
        at = (
            torch.tensor([rows.index(where[k][0]) for k in mine]),
            torch.tensor([where[k][1] for k in mine]) + batch.starts.cpu()[[rows.index(where[k][0]) for k in mine]],
        )

        def residual(layer: int, site: Site, x: Tensor, mine=mine, at=at) -> None:  # type: ignore[no-untyped-def]
            taken = x[at[0].to(x.device), at[1].to(x.device)].float().cpu().numpy()
            if site != "block_input":
                found[site][mine, layer] = taken
            elif layer == 0:
                embedding[mine] = taken

        sites: tuple[Site, ...] = ("block_input", "block_output", *(WRITES if writes else ()))
        with forward(scope, batch, implementation=implementation, residual=residual, sites=sites):
            scope.run(batch)
    return Vectors(embedding, found["block_output"], found.get("attention_output"), found.get("mlp_output"))


def neuron_writes(
    scope: Scope,
    prompts: PromptSet,
    where: Sequence[tuple[int, int]],
    layers: Sequence[int],
    directions: np.ndarray,
    *,
    implementation: str = "auto",
) -> list[np.ndarray]:
    """Return, for each position, how far each neuron of one MLP moves the stream along a direction, `[N]`.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        where: K (prompt, position).
        layers: K blocks.
        directions: `[K, M]` unit vectors.
        implementation: kernel implementation.

    Raises:
        UnsupportedModelError: an MLP whose output is not that of one projection.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(where)
    parts = scope.parts  # type: ignore[attr-defined]
    for prompt in sorted({p for p, _ in where}):
        batch = make_batch(prompts, [prompt], scope.device)
        mine = [k for k, (p, _) in enumerate(where) if p == prompt]

        def residual(layer: int, _site: Site, x: Tensor, mine=mine, batch=batch) -> None:  # type: ignore[no-untyped-def]
            for k in mine:
                if layers[k] != layer:
                    continue
                block = parts.blocks[layer]
                weight = block.down.weight if isinstance(block.down, torch.nn.Linear) else block.down.weight.T
                direction = torch.tensor(directions[k], device=weight.device, dtype=torch.float32)
                activation = x[0, where[k][1] + int(batch.starts[0])].float()
                found[k] = (block.scale * activation * (direction @ weight.float())).cpu().numpy()

        with forward(scope, batch, implementation=implementation, residual=residual, sites=("neurons",)):
            scope.run(batch)
    return found
