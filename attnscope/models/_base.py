"""What every backend gives: a Scope, the loaded model behind one tap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, device

    from attnscope_kernels import Tap

    from ..core.batch import Batch
    from ..core.model_info import ModelInfo

Site = Literal[
    "block_input",
    "block_output",
    "attention_output",
    "mlp_output",
    "neurons",
    "attention_norm_input",
    "attention_norm_output",
    "mlp_norm_input",
    "mlp_norm_output",
    "final_norm_input",
    "final_norm_output",
]
"""Where the residual stream is read: before a block, or after both of its residual additions (and before the final
norm, also in the last block); what attention or the MLP adds to it; the MLP's neurons `[B, T, N]` (the input of its
down projection); what the norms before attention, before the MLP and at the end (layer = number of blocks) read and
give."""

BLOCK_SITES: tuple[Site, ...] = ("block_input", "block_output")

ResidualTap = Callable[[int, Site, "Tensor"], "Tensor | None"]
"""Takes (layer, site, x `[B, T, M]`); a tensor that it returns takes the place of x."""


@runtime_checkable
class Scope(Protocol):
    """A loaded model: its shape, its tokenizer, and the one place where its attention can be read and edited.

    `info.attention_layers` are the layers whose attention reaches the tap. Outside `attach` the model runs with the
    attention implementation that it had before.
    """

    info: ModelInfo
    tokenizer: Any
    model: Any

    @property
    def device(self) -> device:
        """Device of the input ids."""
        ...

    def attach(
        self, tap: Tap | None = None, residual: ResidualTap | None = None, sites: Sequence[Site] = BLOCK_SITES
    ) -> AbstractContextManager[None]:
        """Send every attention call through `tap`, and the residual stream at `sites` through `residual`.

        Everything is restored on exit, also after an exception. Attaching twice at once to one model is an error.

        Raises:
            TapError: on exit of a `run` or `logits` inside, if the tap was not called exactly once per attention
                layer; or when a tap is attached already.
            UnsupportedModelError: the model has no such site.
        """
        ...

    def run(self, batch: Batch) -> None:
        """Run the model's body without its vocabulary projection (no `[T, vocabulary]` tensor is made)."""
        ...

    def logits(self, batch: Batch) -> Tensor:
        """Run the model and return next-token logits `[B, T, vocabulary]`."""
        ...

    def output_projection(self, layer: int) -> Tensor:
        """Return W_O of one attention layer, split by query head: `[H, Dv, M]`, so that head h writes z_h @ W_O[h]."""
        ...

    def value_projection(self, layer: int) -> Tensor:
        """Return W_V of one attention layer, split by KV head: `[G, M, Dv]`, so that KV head g's values are x @ W_V[g].

        x is what the attention norm gives, or the residual stream where no norm stands before attention; a bias is
        left out.

        Raises:
            UnsupportedModelError: no such layer, or values that are not one plain matrix of x.
        """
        ...

    def token_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return W_E and W_U, both `[V, M]`: what a token adds to the residual stream, and what reads its logit.

        Raises:
            UnsupportedModelError: the model lacks one of them.
        """
        ...
