"""ModelInfo: what every other part needs to know about a model, without the model."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .errors import UnknownHeadError
from .ids import HeadId


class ModelInfo(BaseModel):
    """Shape and provenance of one model; L layers, H query heads, G KV heads, D head dim, M model dim.

    `attention_layers` lists the 0-based indices of the layers that hold softmax attention: all of them in most
    models, every fourth in Qwen3-Next. Statistics have one row per entry, labelled with the entry.

    Example:
        >>> info = ModelInfo(model_id="toy", architecture="Toy", backend="toy", attention_layers=(0, 1),
        ...                  n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_model=32, vocab_size=50,
        ...                  context_length=64)
        >>> info.kv_head(3), len(info.heads)
        (1, 8)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    revision: str | None = None
    architecture: str
    backend: str
    n_layers: int = Field(ge=1)
    attention_layers: tuple[int, ...] = Field(min_length=1)
    n_heads: int = Field(ge=1, description="query heads per layer")
    n_kv_heads: int = Field(ge=1, description="key/value heads per layer")
    head_dim: int = Field(ge=1)
    d_model: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    context_length: int | None = Field(default=None, description="longest trained context, tokens")
    causal: bool = True
    windows: tuple[int | None, ...] = Field(default=(), description="sliding window per attention layer, tokens")
    bos_token_id: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    n_parameters: int | None = None
    weights: Literal["given", "random"] = Field(
        default="given", description="random: drawn from weights_seed and never trained; given: all others"
    )
    weights_seed: int | None = Field(default=None, description="seed of random weights")
    materialises_pattern: bool = Field(default=False, description="the backend forms the T×T pattern itself")

    @model_validator(mode="after")
    def _check(self) -> ModelInfo:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} query heads do not divide over {self.n_kv_heads} KV heads")
        if max(self.attention_layers) >= self.n_layers:
            raise ValueError(f"attention layer {max(self.attention_layers)} of {self.n_layers} layers")
        if (self.weights == "random") != (self.weights_seed is not None):
            raise ValueError(f"{self.weights} weights with seed {self.weights_seed}")
        return self

    @property
    def group_size(self) -> int:
        """Query heads per KV head."""
        return self.n_heads // self.n_kv_heads

    @cached_property
    def rows(self) -> dict[int, int]:
        """Row of each attention layer in `[L, H]` statistics."""
        return {layer: row for row, layer in enumerate(self.attention_layers)}

    @property
    def heads(self) -> list[HeadId]:
        """Every query head in order."""
        return [HeadId(layer, head) for layer in self.attention_layers for head in range(self.n_heads)]

    def kv_head(self, head: int) -> int:
        """Return the KV head that serves a query head."""
        return head // self.group_size

    def query_heads(self, kv_heads: Any) -> tuple[HeadId, ...]:
        """Return the query heads that read some KV heads, in order.

        Args:
            kv_heads: `[L, G]` bool, a row for each attention layer.
        """
        return tuple(head for head in self.heads if kv_heads[self.rows[head.layer]][self.kv_head(head.head)])

    def check(self, head: HeadId) -> HeadId:
        """Return the head if the model has it.

        Raises:
            UnknownHeadError: layer or head out of range, or the layer holds no softmax attention.
        """
        if head.layer not in self.rows or not 0 <= head.head < self.n_heads:
            raise UnknownHeadError(
                f"head {head} of {self.model_id}",
                expected=f"a layer of {list(self.attention_layers)} and a query head below {self.n_heads}",
            )
        return head
