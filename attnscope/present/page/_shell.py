"""What every page is put into: bar, sections, data, plotly and scripts in one file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ...core.model_info import ModelInfo
from ...core.report import Provenance
from . import _markup, _payload


def shell(
    info: ModelInfo,
    made: Provenance,
    *,
    title: str,
    nav: Sequence[tuple[str, str]],
    body: Sequence[str],
    beside: str,
    data: Mapping[str, Any],
    scripts: Sequence[str],
) -> str:
    """Return a page.

    Args:
        info: the model, named in the title and the bar.
        made: version and date of the footer.
        title: what the page says of the model; plain text.
        nav: section and name of every link in the bar; the first section is where keyboards skip to.
        body: sections, HTML.
        beside: the footer's sentence on the files beside the page; plain text.
        data: what the scripts read.
        scripts: names of script files in this folder.
    """
    version, model = _markup.text(made.attnscope_version), _markup.text(info.model_id, 120)
    if info.weights == "random":
        model += ", random weights"
    return _fill(
        _asset("page.html"),
        {
            "title": f"{model}: {_markup.text(title)}",
            "version": version,
            "model": model,
            "start": nav[0][0],
            "nav": "".join(f'<a href="#{place}">{name}</a>' for place, name in nav),
            "body": "\n".join(body),
            "footer": f"attnscope {version}, {_markup.text(made.created)}. {_markup.text(beside)}",
            "theme_css": _markup.theme_css(),
            "css": _asset("page.css"),
            "data": _payload.script_data("data", data),
            "plotly": _payload.plotly_script(),
            "scripts": "\n".join(map(_asset, scripts)),
        },
    )


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into `{{name}}` places in one pass, so that no value is read as a template."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place.group(1)], template)
