"""Words and numbers: how scores are called and how values are written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..core.model_info import ModelInfo
from ..core.report import Interval, Measured, Missing

SIGNS = {">=": "≥", "<=": "≤", ">": ">", "<": "<"}
"""Comparisons as they are printed."""

_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")


@dataclass(frozen=True)
class ScoreWords:
    """How a score reads.

    Attributes:
        family: heading under which a head's scores are grouped.
        share: runs from 0 to 1.
    """

    title: str
    family: str
    meaning: str
    share: bool = True


SCORE_WORDS: dict[str, ScoreWords] = {
    "first_token_mass": ScoreWords("First-token mass", "Sinks", "attention on the first token"),
    "sink_mass": ScoreWords("Sink mass", "Sinks", "attention on the layer's sinks, wherever they stand"),
    "sink_rate": ScoreWords("Sink rate", "Sinks", "prompts in which the first token is this head's sink", False),
    "received_max": ScoreWords("Received max", "Sinks", "attention received by the most attended key"),
    "previous_token": ScoreWords("Previous token", "Position", "attention on the previous token"),
    "local_mass": ScoreWords("Local mass", "Position", "attention on the last few tokens"),
    "mean_distance": ScoreWords("Mean distance", "Position", "attention-weighted distance to the key", False),
    "positional_share": ScoreWords("Positional share", "Position", "pattern explained by distance alone"),
    "duplicate_token": ScoreWords("Duplicate token", "Content", "attention on the earlier copy of the token"),
    "induction": ScoreWords("Induction", "Content", "attention on the token after the earlier copy"),
    "echo": ScoreWords("Echo", "Content", "attention on all earlier copies of the token"),
    "retrieval": ScoreWords("Retrieval", "Content", "answer tokens whose source the head looks at most"),
    "copying": ScoreWords("Copying", "Content", "how far the head writes the tokens it reads", False),
    "entropy": ScoreWords("Entropy", "Sharpness", "entropy of attention rows", False),
    "entropy_normalized": ScoreWords("Normalised entropy", "Sharpness", "entropy over the largest possible"),
    "max_prob": ScoreWords("Largest weight", "Sharpness", "largest attention weight of a row"),
    "value_norm_ratio": ScoreWords("Value norm ratio", "Values", "value norm, first token over others", False),
    "value_drain": ScoreWords("Value drain", "Values", "written norm, first token over others", False),
    "importance": ScoreWords("Importance", "Effects", "change of the loss with the head's scale, per token", False),
    "recall_effect": ScoreWords("Recall effect", "Effects", "recall answers lost when it alone is ablated"),
    "reasoning_effect": ScoreWords("Reasoning effect", "Effects", "reasoning answers lost when it alone is ablated"),
}
"""Every score of core.names.SCORES."""


def number(value: float | None) -> str:
    """Return a value with three significant digits or so, `—` where there is none.

    Example:
        >>> number(0.91234), number(12.34), number(1234.5), number(None), number(0.00012)
        ('0.912', '12.3', '1,234', '—', '0.00012')
    """
    if value is None or math.isnan(value):
        return "—"
    size = abs(value)
    if size == 0:
        return "0"
    if 0 < size < 0.001:
        return f"{value:.2g}"
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share in percent with at most one decimal, `—` where there is none; only 1 is written 100%.

    Example:
        >>> percent(1.0), percent(0.9996), percent(0.25), percent(0.0833), percent(0.0002), percent(None)
        ('100%', '99.96%', '25%', '8.3%', '0.02%', '—')
    """
    if value is None or math.isnan(value):
        return "—"
    shown = f"{100 * value:.1f}"
    if (shown == "100.0" and value != 1) or (shown in ("0.0", "-0.0") and value != 0):
        shown = f"{100 * value:.2g}"
        for digits in range(2, 9) if abs(value) >= 0.5 else ():
            shown = f"{100 * value:.{digits}f}"
            if float(shown) != 100:
                break
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown and 'e' not in shown else shown}%"


def points(value: float | None) -> str:
    """Return a change of a share in percentage points, with its sign; `—` where there is none.

    Example:
        >>> points(-0.425), points(0.0), points(0.12), points(None)
        ('-42.5', '0', '+12', '—')
    """
    if value is None or math.isnan(value):
        return "—"
    shown = f"{100 * value:+.1f}".rstrip("0").rstrip(".")
    return "0" if shown in ("+0", "-0") else shown


def bounds(interval: Interval | None) -> str:
    """Return `[0.85, 0.95]`, or nothing where there is no interval."""
    return f"[{number(interval.low)}, {number(interval.high)}]" if interval else ""


def units_suffix(units: str) -> str:
    """Return what to write after a value: nothing for fractions."""
    return {"1": "", "percent": "%", "nat": " nat", "token": " tokens"}.get(units, f" {units}")


def evidence(item: Measured | Missing | None) -> str:
    """Return `0.912 [0.85, 0.95]`, or `not measured`."""
    if not isinstance(item, Measured):
        return "not measured"
    return f"{number(item.value)}{units_suffix(item.units)} {bounds(item.interval)}".strip()


def capital(text: str) -> str:
    """Return a text with its first letter large and all others as they are.

    Example:
        >>> capital("attentions and MLPs")
        'Attentions and MLPs'
    """
    return text[:1].upper() + text[1:]


def weights_notice(info: ModelInfo) -> str | None:
    """Return what a reader must know of random weights; None where there is nothing to say.

    Example:
        >>> from ..core.model_info import ModelInfo
        >>> info = ModelInfo(model_id="toy", architecture="Toy", backend="toy", attention_layers=(0,), n_layers=1,
        ...                  n_heads=1, n_kv_heads=1, head_dim=8, d_model=8, vocab_size=9, weights="random",
        ...                  weights_seed=3)
        >>> weights_notice(info)
        'Random weights (seed 3): this model was never trained. Its labels ... say nothing about a trained model.'
    """
    if info.weights != "random":
        return None
    return (
        f"Random weights (seed {info.weights_seed}): this model was never trained. "
        "Its labels and scores say nothing about a trained model."
    )


def arxiv_url(citation: str | None) -> str | None:
    """Return the address of an arXiv id; None where the citation is none.

    Example:
        >>> arxiv_url("2209.11895"), arxiv_url("definition")
        ('https://arxiv.org/abs/2209.11895', None)
    """
    return f"https://arxiv.org/abs/{citation}" if citation and _ARXIV.fullmatch(citation) else None


def runs(values: list[int]) -> str:
    """Return sorted integers with runs joined.

    Example:
        >>> runs([0, 2, 3, 4, 7])
        '0, 2–4, 7'
    """
    parts: list[list[int]] = []
    for value in sorted(set(values)):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
