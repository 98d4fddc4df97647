"""What a sweep edits: heads, attention or MLPs of blocks, the residual stream, neurons; one or several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...core.errors import TaskError, UnknownHeadError
from ...core.ids import HeadId

if TYPE_CHECKING:
    from ...core.model_info import ModelInfo
    from ...models._base import Site

Level = Literal["head", "attention", "mlp", "residual", "neuron"]
LEVELS: tuple[Level, ...] = get_args(Level)
SITE: dict[Level, Site] = {
    "attention": "attention_output",
    "mlp": "mlp_output",
    "residual": "block_input",
    "neuron": "neurons",
}
"""Where the levels other than heads are read and edited."""


@dataclass(frozen=True, order=True)
class Unit:
    """One part of a model.

    Attributes:
        layer: 0-based block.
        level: `head`: output of a query head; `attention`, `mlp`: what the block's module adds to the residual stream;
            `residual`: the stream before the block; `neuron`: an input of the MLP's down projection.
        index: query head or neuron; 0 for the others.

    Example:
        >>> str(Unit(3, "head", 2)), str(Unit(3, "mlp")), str(Unit(3, "neuron", 17))
        ('L3H2', 'mlp 3', 'L3N17')
    """

    layer: int
    level: Level
    index: int = 0

    def __str__(self) -> str:
        if self.level == "head":
            return str(HeadId(self.layer, self.index))
        return f"L{self.layer}N{self.index}" if self.level == "neuron" else f"{self.level} {self.layer}"

    __repr__ = __str__


Variant = tuple[Unit, ...]
"""Units that are edited together."""


def units_of(scope: Any, level: Level) -> tuple[Unit, ...]:
    """Return every unit of a level, in order.

    Raises:
        TaskError: no such level.
        UnsupportedModelError: the model's neurons are not the input of one projection.

    Example:
        >>> import attnscope
        >>> len(units_of(attnscope.load(device="cpu"), "head"))
        64
    """
    info: ModelInfo = scope.info
    if level not in LEVELS:
        raise TaskError("level of a sweep", found=repr(level), expected=f"one of {', '.join(LEVELS)}")
    if level == "head":
        return tuple(Unit(head.layer, "head", head.head) for head in info.heads)
    if level == "attention":
        return tuple(Unit(layer, level) for layer in info.attention_layers)
    if level == "neuron":
        return tuple(
            Unit(layer, level, index) for layer, size in enumerate(neuron_counts(scope)) for index in range(size)
        )
    return tuple(Unit(layer, level) for layer in range(info.n_layers))


def neuron_counts(scope: Any) -> list[int]:
    """Return the number of MLP neurons of each block.

    Raises:
        UnsupportedModelError: a block's neurons are not the input of one projection.
    """
    from ...core.errors import UnsupportedModelError

    counts = []
    for layer, block in enumerate(scope.parts.blocks):
        weight = getattr(block.down, "weight", None)
        if weight is None:
            raise UnsupportedModelError(
                f"neurons of layer {layer} of {scope.info.model_id}",
                found="an MLP whose output is not that of one projection",
                expected="one down projection",
                fix="Sweep the level 'mlp' instead.",
            )
        # nn.Linear holds [out, in], GPT-2's Conv1D [in, out]
        counts.append(int(weight.shape[0 if type(block.down).__name__ == "Conv1D" else 1]))
    return counts


def check_units(scope: Any, variants: Iterable[Sequence[Unit]]) -> list[Variant]:
    """Return variants whose every unit the model has.

    Raises:
        UnknownHeadError: it lacks one, or a variant names none.
    """
    info: ModelInfo = scope.info
    checked: list[Variant] = []
    for variant in variants:
        if not variant:
            raise UnknownHeadError("variant of a sweep", found="no units", expected="at least one")
        for unit in variant:
            if unit.level == "head":
                info.check(HeadId(unit.layer, unit.index))
            elif not 0 <= unit.layer < info.n_layers or (
                unit.level == "neuron" and not 0 <= unit.index < neuron_counts(scope)[unit.layer]
            ):
                raise UnknownHeadError(
                    f"unit {unit} of {info.model_id}",
                    expected=f"a block below {info.n_layers} and a neuron that it has",
                )
        checked.append(tuple(sorted(set(variant))))
    if not checked:
        raise UnknownHeadError("sweep", found="no units", expected="at least one")
    return checked


def heads_as_units(heads: Iterable[HeadId]) -> Variant:
    """Return heads as one variant."""
    return tuple(Unit(head.layer, "head", head.head) for head in heads)
