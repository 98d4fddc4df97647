"""Measured numbers beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.published import Compared, Published
from ..core.report import Missing

Values = Mapping[str, int | float | Missing]
"""Measured value of each metric, or why there is none."""
NOTHING = "nothing published"


def compare(published: Sequence[Published], measured: Values) -> tuple[Compared, ...]:
    """Set measured values beside published ones: those that are published first, then the others.

    Whole numbers must be equal (or one of several published ones); others may differ by the row's tolerance, bounds
    included.

    Args:
        published: the rows of one claim and one model; empty where nothing is published.
        measured: value of each metric, in the units of `published`.

    Example:
        >>> compare((), {"layers": 8})[0].verdict
        'nothing published'
    """
    rows = [_beside(row, measured.get(row.metric, Missing(reason="unknown metric"))) for row in published]
    known = {row.metric for row in published}
    rest = [_alone(metric, value) for metric, value in measured.items() if metric not in known]
    return (*rows, *rest)


def _beside(row: Published, measured: int | float | Missing) -> Compared:
    common = {"metric": row.metric, "units": row.units, "measured": measured, "published": row.value, "row": row}
    if isinstance(measured, Missing):
        verdict = f"not measured ({measured.reason})"
        return Compared.model_validate({**common, "difference": None, "allowed": None, "verdict": verdict})
    choices = row.value if isinstance(row.value, tuple) else (row.value,)
    nearest = min(choices, key=lambda choice: abs(measured - choice))
    difference, allowed = measured - nearest, row.tolerance.allowed(nearest)
    rounding = 1e-9 * max(abs(measured), abs(nearest)) if allowed else 0.0
    good = abs(difference) <= allowed + rounding
    verdict = "reproduced" if good else "not reproduced"
    return Compared.model_validate({**common, "difference": difference, "allowed": allowed, "verdict": verdict})


def _alone(metric: str, measured: int | float | Missing) -> Compared:
    verdict = f"not measured ({measured.reason})" if isinstance(measured, Missing) else NOTHING
    return Compared(
        metric=metric, units=None, measured=measured, published=None, difference=None, allowed=None, verdict=verdict
    )
