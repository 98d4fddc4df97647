"""A transformers model's ModelInfo before its weights are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.errors import UnsupportedModelError
from ..core.model_info import ModelInfo
from ._describe import describe
from ._layout import find_layout
from ._probe import probe
from ._quiet import quiet_transformers
from ._random import meta_model
from ._refusals import refuse_own_attention
from ._shape import Shape


@dataclass(frozen=True, eq=False)
class Outline:
    """What a report needs to know of a model before it is there."""

    info: ModelInfo
    tokenizer: Any


def outline(shape: Shape, seed: int) -> Outline | None:
    """Return the ModelInfo that the model will have with random weights, from a forward that makes shapes only.

    None where that forward needs numbers, as linear attention and some expert routing do.

    Raises:
        CorruptModelError: the configuration's values make no model.
        UnsupportedModelError: the model's attention cannot be tapped.

    Example:
        >>> from attnscope.models._shape import read_shape
        >>> outline(read_shape(config="qwen3-32b", random_weights=True, device="cpu"), seed=0).info.n_layers
        64
    """
    name = shape.source.name
    with quiet_transformers():
        model = meta_model(shape.kind, shape.config, shape.dtype, name=name, code=shape.code)
        refuse_own_attention(model)
        try:
            calls = probe(model, on_meta=True)
        except UnsupportedModelError:
            return None
        layout = find_layout(model, calls)
        info = describe(model, shape.tokenizer, layout, calls, model_id=name, weights_seed=seed)
    return Outline(info.model_copy(update={"device": str(shape.device)}), shape.tokenizer)
