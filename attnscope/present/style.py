"""One theme for every renderer: colours (light and dark), label marks, fonts."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

ThemeName = Literal["light", "dark"]

SANS = (
    'ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "DejaVu Sans", '
    "Arial, sans-serif"
)
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'


@dataclass(frozen=True)
class Theme:
    """Colours by what they are for.

    Attributes:
        page, surface, sunken: backgrounds, from the page up to a card and down into a plot's empty cells.
        text, muted, line: ink, secondary ink, hairlines.
        accent: links, focus and the first series of a chart.
        second: the second series of a chart.
        strong: the series that the reader should look at, for example an ablation.
    """

    page: str
    surface: str
    sunken: str
    text: str
    muted: str
    line: str
    accent: str
    second: str
    strong: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        page="#f7f7f5",
        surface="#ffffff",
        sunken="#eef0f2",
        text="#14181f",
        muted="#59636f",
        line="#dfe3e8",
        accent="#1257a8",
        second="#8b95a1",
        strong="#b3401c",
    ),
    "dark": Theme(
        page="#0d1014",
        surface="#151a20",
        sunken="#1f262e",
        text="#e8ebef",
        muted="#9ca7b4",
        line="#2b333d",
        accent="#7db7f7",
        second="#77828f",
        strong="#f2936b",
    ),
}

SEQUENTIAL: dict[ThemeName, tuple[str, ...]] = {
    "light": ("#f4f8fc", "#cfe1f2", "#93c0e2", "#4f95c9", "#1f66a5", "#083467"),
    "dark": ("#18212b", "#1d3a56", "#245a86", "#3583b8", "#6db1dc", "#d3ecfc"),
}
"""Colour scale from low to high; one hue with steady lightness, so it reads without colour vision."""

DIVERGING: dict[ThemeName, tuple[str, ...]] = {
    "light": ("#7f3a0c", "#c9742f", "#f0cba4", "#f6f6f3", "#bad7eb", "#5aa0cf", "#16588f"),
    "dark": ("#f6a869", "#b86d32", "#5c3a22", "#20272f", "#1f4b6c", "#3c85bb", "#a3d6fb"),
}
"""Colour scale from below 0 to above 0; the middle is 0, and both ends differ in lightness from it."""


@dataclass(frozen=True)
class LabelStyle:
    """How one label looks and reads.

    Attributes:
        title: in headings.
        one, many: in sentences, after a number.
        mark: two characters in the cell of a grid, so that colour is never the only sign.
        light, dark: fill; Paul Tol's "muted" scheme, lightened where a dark page needs it.
        ink_light, ink_dark: text on the fill.
        meaning: one sentence.
    """

    title: str
    one: str
    many: str
    mark: str
    light: str
    dark: str
    ink_light: str
    ink_dark: str
    meaning: str

    def fill(self, theme: ThemeName) -> str:
        """Return the fill colour."""
        return self.light if theme == "light" else self.dark

    def ink(self, theme: ThemeName) -> str:
        """Return the colour of text on the fill."""
        return self.ink_light if theme == "light" else self.ink_dark


_BLACK, _WHITE = "#101418", "#fefefe"


def _label(title: str, mark: str, light: str, dark: str, ink: str, meaning: str, words: str = "") -> LabelStyle:
    one, _, many = (words or title.lower()).partition("/")
    return LabelStyle(title, one, many or one, mark, light, dark, ink, _BLACK, meaning)


LABEL_STYLES: dict[str, LabelStyle] = {
    "sink": _label("Sink", "Si", "#88ccee", "#7cc4e8", _BLACK, "Rests on a token that all can see.", "sink/sinks"),
    "local": _label("Local", "Lo", "#44aa99", "#4bb8a6", _BLACK, "Looks at the last few tokens."),
    "previous_token": _label("Previous token", "Pr", "#117733", "#35a35c", _WHITE, "Looks one token back.",
                             "previous-token"),
    "duplicate_token": _label("Duplicate token", "Du", "#999933", "#b3b347", _BLACK,
                              "Finds earlier copies of the current token.", "duplicate-token"),
    "induction": _label("Induction", "In", "#cc6677", "#e07d8d", _BLACK,
                        "Finds what followed the current token before."),
    "retrieval": _label("Retrieval", "Rt", "#332288", "#8f82ee", _WHITE,
                        "Looks at the distant token that is about to be copied."),
    "recall": _label("Recall", "Rc", "#ddcc77", "#e3d486", _BLACK, "Answers from memory fail without it."),
    "reasoning": _label("Reasoning", "Rs", "#aa4499", "#cf6cbf", _WHITE, "Answers that need steps fail without it."),
    "positional": _label("Positional", "Po", "#882255", "#b24478", _WHITE, "Attends by distance, whatever the tokens."),
    "unclassified": _label("Unclassified", "··", "#dcdfe3", "#39424d", "#4c5560", "No rule holds."),
}  # fmt: skip
for _name, _ink in (("unclassified", "#b4bdc8"), ("positional", _WHITE)):
    LABEL_STYLES[_name] = replace(LABEL_STYLES[_name], ink_dark=_ink)


def swaps() -> dict[str, str]:
    """Return light colour → dark colour, for every colour that a figure may hold.

    A figure that was drawn light is turned dark by replacing whole strings; the light colours are all different.
    """
    light, dark = THEMES["light"], THEMES["dark"]
    pairs = {getattr(light, field.name): getattr(dark, field.name) for field in fields(Theme)}
    for scale in (SEQUENTIAL, DIVERGING):
        pairs |= dict(zip(scale["light"], scale["dark"], strict=True))
    for style in LABEL_STYLES.values():
        pairs[style.light] = style.dark
    return pairs
