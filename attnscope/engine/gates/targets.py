"""What gates are trained to keep: the full model's final hidden states where it predicts answer tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope_kernels import Tap

from ...core.errors import TaskError
from ...models._base import Site
from ..batches import PromptSet, make_batch
from ..memory import explained
from .branches import full

if TYPE_CHECKING:
    from ...models._base import Scope


def read_site(scope: Scope) -> Site:
    """Return where final hidden states are read: after the final norm, or after the last block of a model without.

    Example:
        >>> import attnscope
        >>> read_site(attnscope.load(backend="toy")), read_site(attnscope.load(device="cpu"))
        ('block_output', 'final_norm_output')
    """
    parts = getattr(scope, "parts", None)
    return "block_output" if parts is None or parts.final_norm is None else "final_norm_output"


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Let no weight of a model require gradients, and restore what did."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def query_positions(prompts: PromptSet) -> list[list[int]]:
    """Return the positions that predict answer tokens, of each prompt.

    Raises:
        TaskError: no such column, or a prompt with none, or with one that it does not have.
    """
    if "query_positions" not in prompts.column_names:
        raise TaskError(
            "prompts for gates",
            found=f"columns {prompts.column_names}",
            expected="a column 'query_positions': the positions that predict answer tokens",
            fix="Use the task 'passkeys', or tasks._answers.with_answers on prompts with answer_ids.",
        )
    rows = [sorted(row) for row in prompts["query_positions"]]
    for prompt, (row, ids) in enumerate(zip(rows, prompts["input_ids"], strict=True)):
        if not row or not 0 <= row[0] <= row[-1] < len(ids):
            raise TaskError(f"query positions of prompt {prompt}", found=row, expected=f"some of 0..{len(ids) - 1}")
    return rows


def hidden_states(scope: Scope, prompts: PromptSet, prompt: int, positions: Sequence[int], tap: Tap) -> Tensor:
    """Return the final hidden states of one prompt at some positions under a tap, `[n, M]`, differentiable.

    Raises:
        DeviceError: the device ran out of memory.
    """
    batch = make_batch(prompts, [prompt], scope.device)
    seen: list[Tensor] = []
    site = read_site(scope)

    def listen(layer: int, where: Site, x: Tensor) -> None:
        if where == site:  # of the blocks' outputs, the last one stays
            rows = x[0, torch.tensor(positions, device=x.device)]
            seen[:] = [rows.to(torch.promote_types(rows.dtype, torch.float32))]

    with explained(scope, batch), scope.attach(tap, listen, (site,)):
        scope.run(batch)
    return seen[0]


class Targets:
    """The full model's hidden states, computed once a prompt and kept."""

    def __init__(self, scope: Scope, prompts: PromptSet) -> None:
        self.scope, self.prompts, self.positions = scope, prompts, query_positions(prompts)
        self._kept: dict[int, Tensor] = {}

    def loss(self, prompt: int, tap: Tap) -> Tensor:
        """Return Σ_answer mean_d (h_full − h)² / n_answer of one prompt under a tap."""
        places = self.positions[prompt]
        if prompt not in self._kept:
            with torch.no_grad():
                self._kept[prompt] = hidden_states(self.scope, self.prompts, prompt, places, full)
        found = hidden_states(self.scope, self.prompts, prompt, places, tap)
        return (self._kept[prompt] - found).pow(2).mean(-1).mean()

    def explained(self, prompt: int) -> AbstractContextManager[None]:
        """Say what ran out of memory in a backward pass; see `engine.memory.explained`."""
        return explained(self.scope, make_batch(self.prompts, [prompt], "cpu"))
