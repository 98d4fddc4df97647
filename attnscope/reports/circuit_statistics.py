"""The arrays behind a CircuitReport as datasets: what every prompt scored with each unit ablated."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..core.model_info import ModelInfo
from ..core.names import Variable
from ..core.statistics import dataset
from ..core.units import SIDES, Level, units_of

DIMS: dict[str, tuple[str, str]] = {
    "head": ("layer", "head"),
    "layer": ("block", "side"),
    "neuron": ("block", "neuron"),
}
"""Dims of the units of each level."""


def effect_statistics(
    info: ModelInfo,
    level: Level,
    task: str,
    baseline: np.ndarray,
    edited: np.ndarray,
    metric: str,
    units: str = "1",
    screened: np.ndarray | None = None,
) -> xr.Dataset:
    """Return one task's metric of every prompt, untouched and with each unit ablated alone.

    Args:
        info: the model.
        level: of the units.
        task: name.
        baseline: `[prompts]`.
        edited: `[prompts, units...]`, NaN where missing; shapes of units as in `core.units.units_of`.
        metric: its name, and `units` its units.
        screened: `[units...]` the screen's estimates of the effects.

    Raises:
        StatisticsError: the arrays do not fit each other or the model.
        UnknownNameError: there is no such level.
    """
    units_of(info, level, edited.shape[1:])
    dims = DIMS[level]
    values: list[tuple[Variable, np.ndarray]] = [
        (Variable("baseline", ("prompt",), units, f"{metric}, nothing ablated"), baseline),
        (Variable("edited", ("prompt", *dims), units, f"{metric} with one {level} ablated"), edited),
    ]
    if screened is not None:
        values.append((Variable("screened", dims, units, f"estimated drop of {metric}"), screened))
    coords = {"side": list(SIDES)} if level == "layer" else {}
    return dataset(info, values, coords, {"task": task, "level": level, "metric": metric})
