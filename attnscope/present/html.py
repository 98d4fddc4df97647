"""One self-contained HTML page of a report: opens offline, loads nothing, light and dark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

from ..core.report import HeadReport
from .page import _evidence, _heads, _markup, _origin, _payload

if TYPE_CHECKING:
    import xarray as xr

NAV = (
    ("heads", "Heads"),
    ("labels", "Labels"),
    ("causal", "Causal"),
    ("sinks", "Sinks"),
    ("residual", "Residual"),
    ("decode", "Decode"),
    ("rules", "Rules"),
    ("provenance", "Provenance"),
)


def render(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> str:
    """Return the page.

    Args:
        report: the report.
        statistics: prompt set → dataset; what is absent is said to be not measured.
    """
    body = (
        _heads.hero(report, statistics),
        _heads.grid_section(report, _evidence.scores_panel(report)),
        _heads.labels_section(report),
        _evidence.causal_section(report),
        _evidence.sinks_section(report),
        _evidence.residual_section(report, statistics),
        _evidence.profiles_section(report, statistics),
        _evidence.decode_section(report),
        _origin.rules_section(report),
        _origin.missing_section(report),
        _origin.provenance_section(report),
    )
    version = _markup.text(report.provenance.attnscope_version)
    model = _markup.text(report.model.model_id, 120)
    if report.model.weights == "random":
        model += ", random weights"
    return _fill(
        _asset("page.html"),
        {
            "title": f"{model}: what every head does",
            "version": version,
            "model": model,
            "nav": "".join(f'<a href="#{place}">{name}</a>' for place, name in NAV),
            "body": "\n".join(body),
            "footer": f"attnscope {version}, {_markup.text(report.provenance.created)}. "
            "The same numbers are in report.json, heads.csv and statistics/ beside this page.",
            "theme_css": _markup.theme_css(),
            "css": _asset("page.css"),
            "data": _payload.script_data("data", _payload.payload(report, statistics)),
            "plotly": _payload.plotly_script(),
            "charts_js": _asset("charts.js"),
            "heads_js": _asset("heads.js"),
        },
    )


def _asset(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into `{{name}}` places in one pass, so that no value is read as a template."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place.group(1)], template)
