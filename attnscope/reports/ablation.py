"""Build an AblationResult's metrics from arrays."""

from __future__ import annotations

import numpy as np

from ..analyses.paired import paired_change
from ..core.ablation_report import AblatedMetric
from .circuit_tests import controlled, measured, of_change, share


def ablated_metric(
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    controls: np.ndarray | None = None,
    units: str = "1",
    higher_is_better: bool = True,
) -> AblatedMetric:
    """Return one metric before and after an ablation, beside random others.

    Args:
        name: of the metric; of units `1`, values in 0..1 are shares.
        before, after: `[P]` of the same prompts.
        controls: `[draws, P]` with as many random other heads ablated.
        units: of the metric.
        higher_is_better: whether a drop is a loss.

    Raises:
        StatisticsError: different shapes, or no prompt was measured both times.
    """
    change = paired_change(before, after)
    form = share if units == "1" else measured
    control, draws = controlled(controls)
    return AblatedMetric(
        name=name,
        units=units,
        higher_is_better=higher_is_better,
        before=form(before),
        after=form(after),
        change=of_change(change),
        p=None if np.isnan(change.p) else change.p,
        control=control,
        control_draws=draws,
    )
