"""One self-contained page with the figure of a comparison."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ..core.errors import ReportError
from ..core.head_comparison import HeadComparison, OverlapResult
from .figures.head_comparison import comparison_scatter
from .style import SANS, THEMES
from .views.head_comparison import overlap_sentence, scatter_view

GENERATOR = '<meta name="generator" content="attnscope compare">'


CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]]}
"""No button that sends the figure anywhere."""


def comparison_page(comparison: HeadComparison) -> str:
    """Return the page; it opens offline and loads nothing.

    Raises:
        ReportError: no head has two values to draw.
    """
    view = scatter_view(comparison)
    if not any(group.heads for group in view.groups):
        raise ReportError("figure", found="no head with both scores", expected="scores or sets of heads on both sides")
    colours, noun = THEMES["light"], comparison.space.replace("_", " ") + "s"
    sentences = [f"{comparison.first.path} and {comparison.second.path}"]
    if isinstance(comparison.overlap, OverlapResult):
        sentences.append(overlap_sentence(comparison.overlap, noun))
    if view.hidden:
        sentences.append(f"{view.hidden} heads lack one of the scores and are not drawn")
    figure = comparison_scatter(view).to_html(full_html=False, include_plotlyjs=True, config=CONFIG)
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    style = (
        f"body{{font-family:{SANS};color:{colours.text};background:{colours.page};margin:24px auto;max-width:1100px}}"
    )
    head = f'<meta charset="utf-8">{GENERATOR}<title>Comparison of heads</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{text}{figure}</body></html>\n'


def check_page(path: Path) -> None:
    """Accept a page that `comparison_page` made.

    Raises:
        ReportError: it is another file.
    """
    with path.open("rb") as file:
        start = file.read(400)
    if GENERATOR.encode() not in start:
        raise ReportError(f"file {path}", found="another file", expected="a page made by 'attnscope compare'")
