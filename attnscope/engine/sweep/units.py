"""What a sweep edits: heads, attention or MLPs of blocks, the residual stream, neurons; one or several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from ...core.errors import TaskError, UnknownHeadError
from ...core.ids import HeadId
from ...core.units import Module, Unit

if TYPE_CHECKING:
    from ...core.model_info import ModelInfo
    from ...models._base import Site

MODULES: tuple[Module, ...] = get_args(Module)
SITE: dict[Module, Site] = {
    "attention": "attention_output",
    "mlp": "mlp_output",
    "residual": "block_input",
    "neuron": "neurons",
}
"""Where units other than heads are read and edited."""


Variant = tuple[Unit, ...]
"""Units that are edited together."""


def first_block(variant: Variant) -> int:
    """Return the first block that a variant edits."""
    return min(unit.layer for unit in variant)


def units_of(scope: Any, module: Module) -> tuple[Unit, ...]:
    """Return every unit of a kind, in order.

    Raises:
        TaskError: no such kind.
        UnsupportedModelError: the model's neurons are not the input of one projection.

    Example:
        >>> import attnscope
        >>> len(units_of(attnscope.load(device="cpu"), "head"))
        64
    """
    info: ModelInfo = scope.info
    if module not in MODULES:
        raise TaskError("units of a sweep", found=repr(module), expected=f"one of {', '.join(MODULES)}")
    if module == "head":
        return tuple(Unit("head", head.layer, head.head) for head in info.heads)
    if module == "attention":
        return tuple(Unit(module, layer) for layer in info.attention_layers)
    if module == "neuron":
        return tuple(
            Unit(module, layer, index) for layer, size in enumerate(neuron_counts(scope)) for index in range(size)
        )
    return tuple(Unit(module, layer) for layer in range(info.n_layers))


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
            if unit.module == "head":
                info.check(HeadId(unit.layer, unit.index))
            elif not 0 <= unit.layer < info.n_layers or (
                unit.module == "neuron" and not 0 <= unit.index < neuron_counts(scope)[unit.layer]
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
    return tuple(Unit("head", head.layer, head.head) for head in heads)
