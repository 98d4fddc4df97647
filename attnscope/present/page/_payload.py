"""Data for the page's script: every score of every head, and the figures."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from ...core.report import HeadReport, Measured, Missing
from .. import figures
from ..style import LABEL_STYLES, swaps
from ..views.causal import causal_views
from ..views.labels import SPECIFICITY, labels_of
from ..views.profiles import bin_names, labelled_profiles
from ..views.residual import ResidualNorms, outlier_rows, residual_norms
from ..views.scores import score_grids
from ..wording import SCORE_WORDS, arxiv_url

if TYPE_CHECKING:
    import xarray as xr

PLAIN_LIMIT = 400_000
"""Data of more characters than this is embedded compressed."""
POSITIONS = 24


def payload(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return everything that the script reads; numbers have four significant digits."""
    names = list(SCORE_WORDS)
    reasons: dict[str, int] = {}
    plan = {(item.layer, item.kv_head): item for item in report.decode.kv_heads}
    heads: list[dict[str, Any]] = []
    for record in report.records:
        items = [record.scores.get(name) for name in names]  # type: ignore[call-overload]
        order = labels_of(record)
        role = plan.get((record.layer, record.kv_head))
        heads.append(
            {
                "name": str(record.id),
                "layer": record.layer,
                "head": record.head,
                "kv": record.kv_head,
                "role": role.role if role else "full",
                "reason": role.reason if role else "no plan",
                "labels": [
                    {**label.model_dump(), "url": arxiv_url(label.citation)}
                    for label in sorted(record.labels, key=lambda label: order.index(label.name))
                ],
                "v": [_short(item.value) if isinstance(item, Measured) else None for item in items],
                "lo": [_bound(item, "low") for item in items],
                "hi": [_bound(item, "high") for item in items],
                "x": [reasons.setdefault(i.reason, len(reasons)) if isinstance(i, Missing) else -1 for i in items],
            }
        )
    tops = [max((head["v"][i] or 0.0 for head in heads), default=0.0) for i in range(len(names))]
    lows = [min((head["v"][i] or 0.0 for head in heads), default=0.0) for i in range(len(names))]
    units = {grid.score: grid.units for grid in score_grids(report)}
    return {
        "width": report.model.n_heads,
        "start": _start(report),
        "scores": [{"name": n, "units": units.get(n), **vars(SCORE_WORDS[n])} for n in names],
        "labels": {n: {"title": s.title, "mark": s.mark, "meaning": s.meaning} for n, s in LABEL_STYLES.items()},
        "rules": [{"score": rule.get("score"), "threshold": rule.get("threshold")} for rule in report.rules],
        "reasons": list(reasons),
        "top": tops,
        "bottom": [min(low, 0.0) for low in lows],
        "heads": heads,
        **_profiles(report, statistics),
        "figures": _figures(report, statistics),
        "swaps": swaps(),
    }


def _start(report: HeadReport) -> int:
    """The head that the panel opens with: the one whose first label says most."""
    ranks = [SPECIFICITY.index(labels_of(record)[0]) for record in report.records]
    return ranks.index(min(ranks))


def _profiles(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    text = statistics.get("text")
    found: dict[str, Any] = {"bins": []}
    if text is None:
        return found
    if "mass_by_distance" in text:
        array = text["mass_by_distance"].transpose("layer", "head", "distance_bin")
        found["bins"] = list(bin_names([int(edge) for edge in array.distance_bin.values]))
        found["distance"] = [[_short(v, 3) for v in row] for layer in array.values for row in layer]
    if "received_mass" in text:
        array = text["received_mass"].transpose("layer", "head", "position")[..., :POSITIONS]
        found["received"] = [[_short(v, 3) for v in row] for layer in array.values for row in layer]
    return found


def _figures(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    found = {"scores": figures.score_heatmap(score_grids(report))}
    if checks := causal_views(report):
        found["causal"] = figures.causal_bars(checks)
    if isinstance(norms := residual_norms(statistics), ResidualNorms):
        found["norms"] = figures.residual_norm_lines(norms)
    if rows := outlier_rows(report):
        found["outliers"] = figures.outlier_bars(rows)
    if profiles := labelled_profiles(report, statistics):
        found["profiles"] = figures.distance_profiles(profiles)
    return {name: figure.to_plotly_json() for name, figure in found.items()}


def script_data(identifier: str, value: Any) -> str:
    """Return JSON in a script element, compressed where it is long; `<`, `>` and `&` never stand in it bare."""
    raw = json.dumps(_clean(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    if len(raw) > PLAIN_LIMIT:
        return packed(identifier, raw, "application/json+gzip")
    safe = raw.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{identifier}">{safe}</script>'


def packed(identifier: str, text: str, kind: str) -> str:
    """Return text as gzip in base64 in a script element that the browser does not run."""
    body = base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()
    return f'<script type="{escape(kind)}" id="{identifier}">{body}</script>'


@lru_cache(maxsize=1)
def plotly_script() -> str:
    """Return plotly's own script, compressed: 4.8 MB become 1.9."""
    from plotly.offline import get_plotlyjs

    return packed("plotly", get_plotlyjs(), "text/javascript+gzip")


def _clean(value: Any) -> Any:
    """Turn arrays into lists and what JSON cannot say (NaN, infinity) into null."""
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _bound(item: Measured | Missing | None, part: str) -> float | None:
    if not isinstance(item, Measured) or item.interval is None:
        return None
    return _short(getattr(item.interval, part), 3)


def _short(value: float, digits: int = 4) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
