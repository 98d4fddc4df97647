"""From ablations to a causal check of a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..analyses.intervals import bootstrap_mean
from ..core.ids import HeadId
from ..core.report import CausalCheck, Interval, Measured

MATCHED = "as many heads drawn from the same layers, the labelled heads excluded"
WIDER = f"{MATCHED}; where these hold too few others, from the nearest layers"


def causal_check(
    label: str,
    heads: Sequence[HeadId],
    metric: str,
    prompt_set: str,
    baseline: np.ndarray,
    ablated: np.ndarray,
    controls: np.ndarray,
    layer_matched: bool,
) -> CausalCheck | None:
    """Return the check, or None where there was no control (a drop without a control says nothing).

    Args:
        baseline: `[prompts]`, range 0..1.
        ablated: `[prompts]`, all the label's heads ablated together.
        controls: `[draws, prompts]`, random other heads ablated.
    """
    if not len(controls):
        return None
    means = controls.mean(1)
    spread = Interval(low=float(means.min()), high=float(means.max()), method="range over random draws")
    return CausalCheck(
        label=label,  # type: ignore[arg-type]
        metric=metric,
        heads=tuple(map(str, heads)),
        ablation="zero",
        baseline=_measured(baseline, prompt_set),
        ablated=_measured(ablated, prompt_set),
        random_control=Measured(
            value=float(means.mean()), n=controls.shape[1], units="1", prompt_set=prompt_set, interval=spread
        ),
        n_random_draws=len(controls),
        control=MATCHED if layer_matched else WIDER,
    )


def _measured(values: np.ndarray, prompt_set: str) -> Measured:
    low, high = bootstrap_mean(values[:, None])
    interval = None if np.isnan(low[0]) else Interval(low=float(low[0]), high=float(high[0]))
    return Measured(value=float(values.mean()), n=len(values), units="1", prompt_set=prompt_set, interval=interval)
