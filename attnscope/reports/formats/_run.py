"""Taking from a finished run what a format needs."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import Grid
from ...core.model_info import ModelInfo
from ...core.names import SCORES
from ...core.report import HeadReport, Measured
from ...core.statistics import require


def statistics(run: AnyRun, name: str, variables: tuple[str, ...], command: str) -> xr.Dataset:
    """Return one dataset of a run that holds the variables.

    Args:
        run: a finished run.
        name: of the dataset.
        variables: that it must hold.
        command: what makes it, for the error.

    Raises:
        ReportError: the run does not hold it; names the command.
        StatisticsError: the dataset lacks a variable.
    """
    if not (run.path / "statistics" / f"{name}.zarr").is_dir():
        raise ReportError(
            f"run {run.path}", found=f"no statistics/{name}.zarr", expected=", ".join(variables), fix=f"Run {command}."
        )
    data = run.statistics(name)
    for variable in variables:
        require(data, variable)
    return data


def every_layer(info: ModelInfo, name: str) -> None:
    """Refuse a model in which some layers hold no softmax attention.

    Raises:
        ReportError: this format has a row for every layer of the model.
    """
    if info.attention_layers != tuple(range(info.n_layers)):
        raise ReportError(
            f"export to {name}",
            found=f"attention in {len(info.attention_layers)} of {info.n_layers} layers of {info.model_id}",
            expected="attention in every layer, as the format has one row a layer",
        )


def whole(values: xr.DataArray, *dims: str) -> np.ndarray:
    """Return the values in the order of `dims`.

    Raises:
        ReportError: other dims, or a value is missing; names the head.
    """
    if set(values.dims) != set(dims):
        raise ReportError(f"statistic {values.name}", found=f"dims {values.dims}", expected=dims)
    array = np.asarray(values.transpose(*dims), dtype=float)
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0]
        named = ", ".join(f"{dim} {index}" for dim, index in zip(dims, place, strict=True))
        raise ReportError(f"statistic {values.name}, {named}", found="no value", expected="a value for every head")
    return array


def mean_over_prompts(values: xr.DataArray) -> np.ndarray:
    """Return `[L, H]` means over measured prompts.

    Raises:
        ReportError: a head was measured in no prompt; names it.
    """
    return whole(values.mean("prompt", skipna=True, keep_attrs=True).rename(values.name), "layer", "head")


def report_score(run: AnyRun, score: str) -> np.ndarray:
    """Return one score of the run's report, `[L, H]` with a row an attention layer, NaN where it is missing.

    Raises:
        ReportError: no such score, or no head has it.
    """
    if score not in SCORES:
        raise ReportError(f"score {score!r}", found="no score of this name", expected=f"one of {', '.join(SCORES)}")
    if not isinstance(run.report, HeadReport):
        raise ReportError(
            f"run {run.path}", found="no head report", expected="head scores", fix="Run 'attnscope report'."
        )
    info = run.report.model
    values = np.full((len(info.attention_layers), info.n_heads), np.nan)
    reason = "the report does not hold it"
    for record in run.report.records:
        item = record.scores.get(score)  # type: ignore[call-overload]
        if isinstance(item, Measured):
            values[info.rows[record.layer], record.head] = item.value
        elif item is not None:
            reason = item.reason
    if np.isnan(values).all():
        raise ReportError(
            f"score {score!r} of run {run.path}", found=f"missing ({reason})", expected="a measured score"
        )
    return values


def grid(values: np.ndarray) -> Grid:
    """Return an array `[L, H]` as rows of plain numbers.

    Example:
        >>> grid(np.array([[1.0, 0.5]]))
        ((1.0, 0.5),)
    """
    return tuple(tuple(row) for row in values.tolist())
