"""Terminal text of a comparison of heads, and of an imported or exported head file."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.head_comparison import ChunkOverlap, HeadComparison, OverlapResult, RankCorrelation, Side
from ..core.head_file import Chunks, HeadFile, Patterns, Ranking, Trials
from ..core.report import Interval, Missing
from .tokens import visible
from .views.head_comparison import overlap_sentence
from .wording import bounds, number


def comparison_text(comparison: HeadComparison) -> RenderableType:
    """Return both sides, the overlap, the correlations and, for two runs, every score and label."""
    noun = comparison.space.replace("_", " ") + "s"
    parts: list[RenderableType] = [_side("A", comparison.first), _side("B", comparison.second), Text("")]
    if isinstance(comparison.overlap, OverlapResult):
        parts.append(Text(overlap_sentence(comparison.overlap, noun)))
    elif comparison.chunks is None:
        parts.append(Text(f"overlap: not measured ({comparison.overlap.reason})", style="yellow"))
    if isinstance(comparison.correlation, RankCorrelation):
        parts.append(_correlation(comparison.correlation))
    elif comparison.chunks is None:
        parts.append(
            Text(f"rank correlation: not measured ({visible(comparison.correlation.reason, 200)})", style="yellow")
        )
    if comparison.chunks is not None:
        parts.append(_chunks(comparison.chunks))
    if comparison.scores:
        parts += [Text(""), scores_table(comparison)]
    if comparison.labels:
        parts += [Text(""), labels_table(comparison)]
    return Group(*parts)


def scores_table(comparison: HeadComparison) -> Table:
    """Return one row a score that both runs measured."""
    table = _table("score", "heads", "shared", "of", "by chance", "p", "p within layers", "Spearman", "Kendall")
    for row in comparison.scores:
        found, rank = row.overlap, row.correlation
        table.add_row(
            row.score,
            str(found.heads),
            str(found.shared),
            str(found.first),
            number(found.expected),
            f"{found.p_value:.2g}",
            f"{found.layer_p_value:.2g}",
            _value(rank.spearman),
            _value(rank.kendall),
        )
    return table


def labels_table(comparison: HeadComparison) -> Table:
    """Return one row a label; `—` where both runs say the same of every head."""
    table = _table("label", "in A", "in B", "in both", "Cohen's kappa")
    for row in comparison.labels:
        table.add_row(row.label, str(row.first), str(row.second), str(row.both), _value(row.kappa))
    return table


def head_file_text(file: HeadFile) -> RenderableType:
    """Return what a head file holds, in a few lines."""
    kind, content = "KV" if file.space == "kv_head" else "query", file.content
    shape = "shape not said" if file.n_layers is None else f"{file.n_layers} layers × {file.n_heads} {kind} heads"
    lines = [Text(f"{file.format}: {shape}", style="bold")]
    if file.model_id:
        lines.append(Text(f"model {visible(file.model_id, 100)}"))
    scores = file.scores()
    if isinstance(content, Ranking):
        lines.append(Text("every head" if content.every_head else f"{len(content.heads)} heads listed"))
    if isinstance(content, Trials):
        counts = [len(trials) for row in content.trials for trials in row]
        lines.append(Text(f"{min(counts)} to {max(counts)} trials a head"))
    if isinstance(content, Patterns):
        names = [item.name for row in content.patterns for item in row]
        lines.append(Text(", ".join(f"{names.count(name)} {visible(name)}" for name in sorted(set(names)))))
    if isinstance(content, Chunks):
        lines.append(Text(f"{len(content.dominant[0][0])} of {content.n_chunks} chunks, pairing {content.pairing}"))
    if scores is not None and not isinstance(content, Ranking):
        share = float(np.mean(scores[~np.isnan(scores)] >= 0.5))
        low, high = (number(float(value)) for value in (np.nanmin(scores), np.nanmax(scores)))
        lines.append(Text(f"scores {low} to {high}, {share:.3f} of heads at 0.5 or more"))
    made = file.config.get("attnscope")
    if isinstance(made, dict) and made.get("tied_at_cut"):
        tied = f"{made['tied_at_cut']} heads outside the budget have the score of its last head"
        lines.append(Text(f"{tied}; earlier layers came first", style="yellow"))
    return Group(*lines)


def _side(name: str, side: Side) -> Text:
    model = f", {visible(side.model_id, 60)}" if side.model_id else ""
    reduced = f", {side.reduction}" if side.reduction else ""
    tied = f"; {side.tied} more heads tie with its last" if side.tied else ""
    text = Text(f"{name}  ").append(visible(side.path, 100), style="bold")
    return text.append(f" ({side.what}{model}): {side.score}{reduced}; set: {side.chosen_by}{tied}")


def _correlation(found: RankCorrelation) -> Text:
    spearman = _with(found.spearman, found.spearman_interval)
    kendall = _with(found.kendall, found.kendall_interval)
    return Text(f"Spearman {spearman}, Kendall {kendall} over {found.heads} heads")


def _chunks(found: ChunkOverlap) -> Text:
    return Text(
        f"{found.shared:.1%} of a head's {found.chunks} dominant chunks are in both, mean of {found.heads} heads; "
        f"{found.expected:.1%} by chance ({found.n_chunks} chunks)"
    )


def _with(value: float | Missing, interval: Interval | None) -> str:
    if isinstance(value, Missing):
        return f"not measured ({value.reason})"
    return f"{number(value)} {bounds(interval)}".strip()


def _value(value: float | Missing) -> str:
    return "—" if isinstance(value, Missing) else number(value)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", no_wrap=not place)
    return table
