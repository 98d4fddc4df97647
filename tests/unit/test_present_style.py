"""Colours: fixed for every label, told apart without full colour vision, readable, and safe to turn dark."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attnscope.core.names import LABELS, SCORES
from attnscope.present.style import DIVERGING, LABEL_STYLES, SEQUENTIAL, THEMES, swaps
from attnscope.present.views import SPECIFICITY
from attnscope.present.wording import SCORE_WORDS

VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
"""Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB."""


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    light = sorted((float(np.dot([0.2126, 0.7152, 0.0722], linear(x))) for x in (a, b)), reverse=True)
    return (light[0] + 0.05) / (light[1] + 0.05)


def test_every_name_has_a_look_and_words():
    assert set(LABEL_STYLES) == set(LABELS) == set(SPECIFICITY)
    assert set(SCORE_WORDS) == set(SCORES)
    assert len({style.mark for style in LABEL_STYLES.values()}) == len(LABELS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_label_colours_differ_for_every_vision(theme, vision):
    seen = {name: lab(np.array(VISION[vision]) @ linear(style.fill(theme))) for name, style in LABEL_STYLES.items()}
    nearest = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in itertools.combinations(seen, 2))
    assert nearest[0] > 10, nearest


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(theme):
    for name, style in LABEL_STYLES.items():
        assert contrast(style.fill(theme), style.ink(theme)) >= 4.5, name
    colours = THEMES[theme]
    for ink in (colours.text, colours.muted, colours.accent):
        for ground in (colours.page, colours.surface, colours.sunken):
            assert contrast(ink, ground) >= 4.5, (ink, ground)


def test_light_colours_are_all_different_so_that_swapping_is_exact():
    pairs = swaps()
    n = len(vars(THEMES["light"])) + len(SEQUENTIAL["light"]) + len(DIVERGING["light"]) + len(LABELS)
    assert len(pairs) == n
