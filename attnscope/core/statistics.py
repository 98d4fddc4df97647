"""Statistics: xarray datasets whose every variable says what it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .errors import StatisticsError
from .names import DIMS, Variable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .model_info import ModelInfo


def dataset(
    info: ModelInfo,
    values: Iterable[tuple[Variable, ArrayLike]],
    coords: Mapping[str, ArrayLike] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Build a dataset; layers are labelled with the model's own layer indices.

    Args:
        info: the model; gives the coordinates of `layer`, `head` and `kv_head`.
        values: (variable, array with the variable's dims) pairs.
        coords: coordinates of other dims; a dim without one counts from 0.
        attrs: provenance of the whole dataset.

    Raises:
        StatisticsError: an unknown dim, a missing unit, or a shape that does not fit.
    """
    known = {"layer": list(info.attention_layers), "head": range(info.n_heads), "kv_head": range(info.n_kv_heads)}
    arrays: dict[str, xr.DataArray] = {}
    used: dict[str, int] = {}
    for variable, value in values:
        array = np.asarray(value)
        if array.ndim != len(variable.dims):
            raise StatisticsError(f"variable {variable.name}", found=f"shape {array.shape}", expected=variable.dims)
        arrays[variable.name] = xr.DataArray(
            array,
            dims=variable.dims,
            attrs={"units": variable.units, "long_name": variable.long_name, "source": variable.source},
        )
        used.update(zip(variable.dims, array.shape, strict=True))
    labels: dict[str, Any] = {name: list(values) for name, values in known.items() if name in used}
    labels |= {name: np.arange(size) for name, size in used.items() if name not in labels}
    labels |= dict(coords or {})
    result = xr.Dataset(arrays, coords=labels, attrs=dict(attrs or {}))
    check(result)
    return result


def check(statistics: xr.Dataset) -> xr.Dataset:
    """Return the dataset if every dim is known and every variable has units, long_name and source.

    Raises:
        StatisticsError: naming the variable and what it lacks.
    """
    for name, array in statistics.data_vars.items():
        unknown = [dim for dim in array.dims if dim not in DIMS]
        if unknown:
            raise StatisticsError(f"variable {name}", found=f"dims {unknown}", expected=f"dims of {sorted(DIMS)}")
        lacking = [key for key in ("units", "long_name", "source") if not array.attrs.get(key)]
        if lacking:
            raise StatisticsError(f"variable {name}", found=f"no {', '.join(lacking)}", expected="all three")
    return statistics


def require(statistics: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable.

    Raises:
        StatisticsError: the statistics lack it; the message lists what they hold.
    """
    if name not in statistics:
        raise StatisticsError(
            f"statistic {name!r}",
            found=f"only {', '.join(map(str, statistics.data_vars)) or 'nothing'}",
            expected="a run that collected it",
            fix=f"Collect again with a collector that gives {name!r}.",
        )
    return statistics[name]


def head_means(statistics: xr.Dataset) -> xr.Dataset:
    """Return every per-head variable averaged over prompts (missing prompts left out).

    Example:
        head_means(stats).to_dataframe() has one row a head.
    """
    chosen = [
        n for n, a in statistics.data_vars.items() if {"layer", "head"} <= set(a.dims) <= {"prompt", "layer", "head"}
    ]
    with xr.set_options(keep_attrs=True):
        means = {
            name: statistics[name].mean("prompt", skipna=True)
            if "prompt" in statistics[name].dims
            else statistics[name]
            for name in chosen
        }
    return xr.Dataset(means, attrs=statistics.attrs)
