"""Small pieces of HTML; every text that enters is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..style import LABEL_STYLES, MONO, SANS, THEMES, ThemeName
from ..tokens import visible


def text(value: object, limit: int = 400) -> str:
    """Return plain text as HTML, on one line, with hidden characters made visible."""
    return escape(visible(str(value), limit))


def token(value: str) -> str:
    """Return token text (made visible already) in its own box."""
    return f'<span class="token">{escape(value)}</span>'


def chip(label: str) -> str:
    """Return a label's mark and title."""
    style = LABEL_STYLES.get(label)
    if style is None:
        return text(label)
    return f'<span class="chip l-{label}"><span class="mark">{style.mark}</span>{style.title}</span>'


def head_link(name: str) -> str:
    """Return a button that opens a head."""
    return f'<button class="link" type="button" data-head="{text(name)}">{text(name)}</button>'


def citation(identifier: str, url: str | None) -> str:
    """Return a link to arXiv, or the bare text."""
    if url is None:
        return text(identifier)
    return f'<a href="{escape(url)}" rel="noreferrer">arXiv {text(identifier)}</a>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", right: Sequence[int] = ()) -> str:
    """Return a table; cells are HTML already, columns listed in `right` are numbers."""
    aligned = [' class="r"' if i in right else "" for i in range(len(columns))]
    head = "".join(f'<th scope="col"{align}>{text(name)}</th>' for name, align in zip(columns, aligned, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{align}>{cell}</td>" for cell, align in zip(row, aligned, strict=True)) + "</tr>"
        for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="overflow"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def section(identifier: str, title: str, lede: str, body: str) -> str:
    """Return a section; `lede` is plain text, `body` is HTML."""
    return f'<section id="{identifier}"><h2>{text(title)}</h2><p class="lede">{text(lede, 600)}</p>{body}</section>'


def panel(body: str, title: str = "") -> str:
    """Return a card."""
    heading = f"<h3>{text(title)}</h3>" if title else ""
    return f'<div class="panel">{heading}{body}</div>'


def chart(figure: str, height: int) -> str:
    """Return the place of a figure of the page's data."""
    return f'<div class="chart wait" data-figure="{figure}" style="min-height:{height}px"></div>'


def not_measured(reason: str) -> str:
    """Return a note in place of something that was not measured."""
    return f'<p class="note">Not measured: {text(reason)}.</p>'


def theme_css() -> str:
    """Return the theme as CSS variables; dark by the system's setting, or by the page's switch."""
    light, dark = _variables("light"), _variables("dark")
    labels = "".join(
        f".l-{name}{{--fill:var(--l-{name});--ink:var(--i-{name})}}.s-{name}{{--second-fill:var(--l-{name})}}"
        for name in LABEL_STYLES
    )
    return (
        f":root{{color-scheme:light;--sans:{SANS};--mono:{MONO};{light}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n{labels}"
    )


def _variables(theme: ThemeName) -> str:
    colours = "".join(f"--{name}:{value};" for name, value in vars(THEMES[theme]).items())
    fills = "".join(f"--l-{n}:{s.fill(theme)};--i-{n}:{s.ink(theme)};" for n, s in LABEL_STYLES.items())
    return colours + fills
