"""Units that a circuit is made of: query heads, the attention and MLP of blocks, MLP neurons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from .errors import StatisticsError, UnknownNameError
from .ids import HeadId
from .model_info import ModelInfo

Level = Literal["head", "layer", "neuron"]
LEVELS: tuple[Level, ...] = get_args(Level)
Module = Literal["head", "attention", "mlp", "neuron", "residual"]
"""`residual` is the residual stream before a block; it is edited, and is part of no circuit."""
SIDES: tuple[Module, Module] = ("attention", "mlp")
"""Last axis of arrays at level `layer`, `[blocks, 2]`."""
_PATTERN = re.compile(r"^(attention|mlp|residual) (\d+)$|^L(\d+)N(\d+)$")


@dataclass(frozen=True, order=True)
class Unit:
    """One unit, 0-based; `index` is the head or neuron, 0 for a block's attention, MLP or residual stream.

    Example:
        >>> print(Unit("head", 3, 2), Unit("mlp", 4, 0), Unit("neuron", 1, 77))
        L3H2 mlp 4 L1N77
    """

    module: Module
    layer: int
    index: int = 0

    def __str__(self) -> str:
        if self.module == "head":
            return str(HeadId(self.layer, self.index))
        return f"L{self.layer}N{self.index}" if self.module == "neuron" else f"{self.module} {self.layer}"

    @property
    def level(self) -> Level:
        """The level it belongs to."""
        return self.module if self.module in ("head", "neuron") else "layer"  # type: ignore[return-value]

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read a unit's name.

        Raises:
            UnknownHeadError: the text names no unit.

        Example:
            >>> Unit.parse("mlp 4") == Unit("mlp", 4, 0), Unit.parse("L3H2").level
            (True, 'head')
        """
        match = _PATTERN.match(text.strip())
        if match is None:
            return cls("head", *HeadId.parse(text))
        side, block, layer, neuron = match.groups()
        if side:
            return cls(side, int(block), 0)  # type: ignore[arg-type]
        return cls("neuron", int(layer), int(neuron))


def units_of(info: ModelInfo, level: Level, shape: Sequence[int]) -> list[Unit]:
    """Return the unit of every entry of an array, in the array's (C) order.

    Args:
        info: the model.
        level: `head` arrays are `[attention layers, heads]`, `layer` arrays `[blocks, 2]` (attention, then MLP) and
            `neuron` arrays `[blocks, neurons]`.
        shape: of the array.

    Raises:
        UnknownNameError: there is no such level.
        StatisticsError: the array has another shape.
    """
    if level not in LEVELS:
        raise UnknownNameError(f"level {level!r}", expected=f"one of {', '.join(LEVELS)}")
    wanted = {
        "head": (len(info.attention_layers), info.n_heads),
        "layer": (info.n_layers, 2),
        "neuron": (info.n_layers, *shape[1:2]),
    }[level]
    if tuple(shape) != wanted:
        raise StatisticsError(f"units at level {level}", found=f"shape {tuple(shape)}", expected=f"shape {wanted}")
    if level == "head":
        return [Unit("head", *head) for head in info.heads]
    if level == "layer":
        return [Unit(side, block, 0) for block in range(wanted[0]) for side in SIDES]
    return [Unit("neuron", block, neuron) for block in range(wanted[0]) for neuron in range(wanted[1])]
