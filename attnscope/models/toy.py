"""The toy backend: a few attention layers in plain torch, for fast tests and for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnscope_kernels.contract import AttentionCall, Tap

from ..core.batch import Batch
from ..core.errors import TapError, UnsupportedModelError
from ..core.model_info import ModelInfo
from ._base import BLOCK_SITES, ResidualTap, Site
from ._options import read_device, read_dtype


def load(
    model: Any = None,
    *,
    config: Any = None,
    dtype: Any = "auto",
    device: Any = None,
    tokenizer: Any = None,
    seed: int = 0,
    **_: Any,
) -> Toy:
    """Return a toy model: the given one as it is, or a small random one.

    Raises:
        UnsupportedModelError: `model` is not a Toy, or there is a configuration.

    Example:
        >>> load().info.n_heads
        4
    """
    if config is not None:
        raise UnsupportedModelError(
            "toy model",
            found="a configuration",
            expected="none",
            fix="Use the backend hf, or Toy(...) for other sizes.",
        )
    if isinstance(model, Toy):
        return model
    if model is not None:
        raise UnsupportedModelError("toy model", found=repr(model), expected="a Toy, or None for a random one")
    chosen = read_device(device or "cpu")
    toy = Toy(seed=seed, dtype=read_dtype(dtype, chosen), device=chosen)
    toy.tokenizer = tokenizer
    return toy


class ToyAttention(nn.Module):
    """One attention layer: W_Q `[M, H, D]`, W_K and W_V `[M, G, D]`, W_O `[H, D, M]`; positions come added to x."""

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        width = d_model**-0.5
        self.w_q = nn.Parameter(torch.randn(d_model, n_heads, head_dim) * 2 * width)
        self.w_k = nn.Parameter(torch.randn(d_model, n_kv_heads, head_dim) * 2 * width)
        self.w_v = nn.Parameter(torch.randn(d_model, n_kv_heads, head_dim) * width)
        self.w_o = nn.Parameter(torch.randn(n_heads, head_dim, d_model) * (n_heads * head_dim) ** -0.5)

    def call(self, layer: int, x: Tensor, valid: Tensor | None, window: int | None) -> AttentionCall:
        """Return the AttentionCall for a residual stream `[B, T, M]`."""
        q, k, v = (torch.einsum("btm,mhd->bhtd", x, w) for w in (self.w_q, self.w_k, self.w_v))
        return AttentionCall(layer=layer, q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, key_valid=valid, window=window)


class ToyModel(nn.Module):
    """Embedding, attention-only blocks that add to the residual stream, unembedding."""

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(info.vocab_size, info.d_model))
        self.unembedding = nn.Parameter(torch.randn(info.d_model, info.vocab_size) * info.d_model**-0.5)
        self.layers = nn.ModuleList(
            ToyAttention(info.d_model, info.n_heads, info.n_kv_heads, info.head_dim) for _ in range(info.n_layers)
        )


class Toy:
    """A transparent Scope: `model.layers[l]` holds the weights, everything else is in this file.

    Args:
        n_layers: L.
        n_heads: H query heads.
        n_kv_heads: G KV heads, a divisor of H.
        head_dim: D.
        d_model: M, even.
        vocab_size: V.
        seed: of the random weights; the global random state is left alone.
        window: sliding window of every layer, or None.
        dtype: of the weights.
        device: of the weights.

    Example:
        >>> toy = Toy(n_layers=3)
        >>> toy.info.attention_layers, toy.output_projection(0).shape
        ((0, 1, 2), torch.Size([4, 8, 32]))
    """

    def __init__(
        self,
        n_layers: int = 2,
        n_heads: int = 4,
        n_kv_heads: int = 2,
        head_dim: int = 8,
        d_model: int = 32,
        vocab_size: int = 64,
        seed: int = 0,
        *,
        window: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.info = ModelInfo(
            model_id=f"toy-{seed}",
            architecture="Toy",
            backend="toy",
            n_layers=n_layers,
            attention_layers=tuple(range(n_layers)),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            d_model=d_model,
            vocab_size=vocab_size,
            windows=(window,) * n_layers,
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            weights="random",
            weights_seed=seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = ToyModel(self.info).to(device, dtype).requires_grad_(False)
        self.tokenizer: Any = None
        self._tap: Tap = _plain
        self._residual: ResidualTap | None = None
        self._sites: tuple[Site, ...] = BLOCK_SITES
        self._attached = False

    @property
    def device(self) -> torch.device:
        """Device of the input ids."""
        return self.model.embedding.device

    @contextmanager
    def attach(
        self, tap: Tap | None = None, residual: ResidualTap | None = None, sites: Sequence[Site] = BLOCK_SITES
    ) -> Iterator[None]:
        """Send attention through `tap` and the residual stream through `residual`; see `Scope.attach`.

        Raises:
            UnsupportedModelError: a site other than before and after blocks; this model has no norms and no MLPs.
        """
        if residual is not None and (lacking := [site for site in sites if site not in BLOCK_SITES]):
            raise UnsupportedModelError(
                f"site {lacking[0]} of {self.info.model_id}",
                found="a model without norms and MLPs",
                expected=f"one of {', '.join(BLOCK_SITES)}",
            )
        if self._attached:
            found = "a tap that is attached already"
            raise TapError(f"model {self.info.model_id}", found=found, expected="one at a time")
        self._attached, self._tap, self._residual = True, tap or _plain, residual
        self._sites = tuple(sites)
        try:
            yield
        finally:
            self._attached, self._tap, self._residual = False, _plain, None

    def run(self, batch: Batch) -> None:
        """Run every block."""
        self._stream(batch)

    def logits(self, batch: Batch) -> Tensor:
        """Return next-token logits `[B, T, V]`."""
        return self._stream(batch) @ self.model.unembedding

    def output_projection(self, layer: int) -> Tensor:
        """Return W_O `[H, D, M]` of one layer."""
        return self._layer(layer).w_o.detach()

    def value_projection(self, layer: int) -> Tensor:
        """Return W_V `[G, M, D]` of one layer."""
        return self._layer(layer).w_v.detach().transpose(0, 1)

    def token_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return W_E and W_U, both `[V, M]`."""
        return self.model.embedding.detach(), self.model.unembedding.detach().T

    def _layer(self, layer: int) -> ToyAttention:
        if layer not in self.info.rows:
            raise UnsupportedModelError(
                f"layer {layer} of {self.info.model_id}",
                found="no softmax attention there",
                expected=f"one of {list(self.info.attention_layers)}",
            )
        return self.model.layers[layer]  # type: ignore[return-value]

    def _stream(self, batch: Batch) -> Tensor:
        ids, valid = batch.input_ids.to(self.device), batch.valid.to(self.device)
        x = self.model.embedding[ids] + _positions(valid, self.info.d_model).to(self.model.embedding.dtype)
        window = self.info.windows[0]
        for layer, block in enumerate(self.model.layers):
            x = self._seen(layer, "block_input", x)
            call = block.call(layer, x, valid if batch.padded else None, window)  # type: ignore[operator]
            z = self._tap(call)
            expected = (*call.q.shape[:3], call.v.shape[3])
            if not isinstance(z, Tensor) or tuple(z.shape) != expected:
                found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                raise TapError(f"tap at layer {layer}", found=found, expected=f"z of shape {expected} [B, H, Tq, Dv]")
            x = x + torch.einsum("bhtd,hdm->btm", z, block.w_o)  # type: ignore[arg-type]
            x = self._seen(layer, "block_output", x)
        return x

    def _seen(self, layer: int, site: Site, x: Tensor) -> Tensor:
        if self._residual is None or site not in self._sites:
            return x
        changed = self._residual(layer, site, x)
        return x if changed is None else changed


def _plain(call: AttentionCall) -> Tensor:
    from attnscope_kernels import attend

    output = attend(call).output
    if output is None:
        raise TapError(f"layer {call.layer}", found="no output", expected="z from the kernels")
    return output


def _positions(valid: Tensor, d_model: int) -> Tensor:
    """Return sinusoids `[B, T, M]` of the positions of real tokens, 0 for the first one."""
    position = (valid.long().cumsum(1) - 1).clamp(min=0).to(torch.float32)
    half = d_model // 2
    rate = 1e-2 ** (torch.arange(half, device=valid.device) / half)
    angle = position[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1)
