"""The head grid (layer × head) and the table of heads."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import UnknownNameError
from ...core.names import LABELS, SCORES
from ...core.report import HeadRecord, HeadReport, Measured
from ..style import LABEL_STYLES
from ..wording import SCORE_WORDS, SIGNS, evidence, number
from .labels import label_counts, labels_of


@dataclass(frozen=True)
class HeadCell:
    """One head of the grid.

    Attributes:
        labels: the most specific first.
        role: of its KV head in the decode plan, `full` or `streaming`.
        hover: lines of plain text: name, labels with their rules, the scores that rules use.
    """

    name: str
    layer: int
    head: int
    kv_head: int
    role: str
    labels: tuple[str, ...]
    hover: tuple[str, ...]

    @property
    def primary(self) -> str:
        """The most specific label."""
        return self.labels[0]

    @property
    def mark(self) -> str:
        """Two characters that stand for the primary label."""
        return LABEL_STYLES[self.primary].mark


@dataclass(frozen=True)
class HeadGrid:
    """All heads; `cells` in order of layer, then head."""

    model: str
    layers: tuple[int, ...]
    n_heads: int
    group_size: int
    cells: tuple[HeadCell, ...]
    counts: dict[str, int]

    def row(self, layer: int) -> tuple[HeadCell, ...]:
        """Return the cells of one layer."""
        return tuple(cell for cell in self.cells if cell.layer == layer)


@dataclass(frozen=True)
class HeadRow:
    """One row of the heads table; None where a score was not measured."""

    name: str
    kv_head: int
    role: str
    labels: tuple[str, ...]
    scores: dict[str, float | None]


def head_grid(report: HeadReport) -> HeadGrid:
    """Return the head grid."""
    roles = {(item.layer, item.kv_head): item.role for item in report.decode.kv_heads}
    ruled = tuple(dict.fromkeys(str(rule["score"]) for rule in report.rules if rule.get("score") in SCORES))
    return HeadGrid(
        model=report.model.model_id,
        layers=report.model.attention_layers,
        n_heads=report.model.n_heads,
        group_size=report.model.group_size,
        cells=tuple(
            _cell(record, roles.get((record.layer, record.kv_head), "full"), ruled) for record in report.records
        ),
        counts=label_counts(report),
    )


def _cell(record: HeadRecord, role: str, ruled: tuple[str, ...]) -> HeadCell:
    names = labels_of(record)
    titles = ", ".join(LABEL_STYLES[name].title for name in names)
    lines = [f"{record.id} · {titles}", f"KV head {record.kv_head}, {role} cache"]
    for label in record.labels:
        if label.score and label.threshold is not None:
            lines.append(f"{label.score} {number(label.value)} {SIGNS[label.comparison or '>=']} {label.threshold:g}")
    for score in ruled:
        item = record.scores.get(score)  # type: ignore[call-overload]
        lines.append(f"{SCORE_WORDS[score].title}: {evidence(item)}")
    return HeadCell(
        name=str(record.id),
        layer=record.layer,
        head=record.head,
        kv_head=record.kv_head,
        role=role,
        labels=names,
        hover=tuple(lines),
    )


def heads_table(
    report: HeadReport, label: str | None = None, sort: str | None = None, top: int | None = None
) -> list[HeadRow]:
    """Return heads, with the chosen label, largest score first and unmeasured heads last.

    Args:
        report: the report.
        label: only heads that carry it.
        sort: a score; None sorts by the label's own score where there is one, else by layer and head.
        top: at most so many rows.

    Raises:
        UnknownNameError: there is no such label or score.
    """
    _check("label", label, LABELS)
    _check("score", sort, SCORES)
    roles = {(item.layer, item.kv_head): item.role for item in report.decode.kv_heads}
    chosen = [record for record in report.records if label is None or record.has(label)]
    if sort is None and label is not None:
        sort = next((item.score for r in chosen for item in r.labels if item.name == label and item.score), None)
    rows = []
    for record in chosen:
        scores: dict[str, float | None] = {
            str(name): item.value if isinstance(item, Measured) else None for name, item in record.scores.items()
        }
        role = roles.get((record.layer, record.kv_head), "full")
        rows.append(HeadRow(str(record.id), record.kv_head, role, labels_of(record), scores))
    if sort is not None:
        rows.sort(key=lambda row: _last_if_missing(row.scores.get(sort)))
    return rows[:top]


def _last_if_missing(value: float | None) -> tuple[bool, float]:
    return (value is None, -(value or 0.0))


def _check(kind: str, name: str | None, known: tuple[str, ...]) -> None:
    import difflib

    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise UnknownNameError(
            f"{kind} {name!r}",
            found="nothing with this name",
            expected=f"one of {', '.join(known)}",
            fix=f"Did you mean {' or '.join(near)}?" if near else None,
        )
