"""Terminal text of trained gates, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..core.gate_report import GateReport, KeptAccuracy
from .tokens import visible
from .wording import weights_notice

TITLES = {"duo_attention": "DuoAttention gates, share of full attention", "hardkuma": "HardKuma gates, b·B(1 + 1/a, b)"}


def gates_summary(report: GateReport) -> RenderableType:
    """Return the model, the gates of every layer and KV head, losses, and what accuracy the largest gates keep."""
    notice = weights_notice(report.model)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in report.final_losses.items())
    parts: list[RenderableType] = [
        Text(visible(report.model.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(f"{TITLES[report.method]} (arXiv {report.source}), {report.settings['steps']} steps"),
        _indent(gates_table(report)),
        Text(f"Last losses: {losses}"),
        *(Text(note, style="yellow") for note in report.provenance.notes),
    ]
    if report.full_accuracy is not None:
        parts += [Text(""), Text("Held-out needle accuracy, all other KV heads streaming"), _indent(_kept(report))]
    return Group(*parts)


def gates_table(report: GateReport) -> Table:
    """Return one row a layer with attention, one column a KV head; 0.5 and more is bold."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    for head in range(report.model.n_kv_heads):
        table.add_column(f"KV {head}", justify="right")
    for layer, row in zip(report.model.attention_layers, report.gates, strict=True):
        cells = (Text(f"{gate:.2f}", style="bold" if gate >= 0.5 else "dim") for gate in row)
        table.add_row(str(layer), *cells)
    return table


def _kept(report: GateReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("full KV heads", "accuracy", "random heads, mean", "lowest", "highest"):
        table.add_column(name, justify="right")
    table.add_row("all", f"{report.full_accuracy:.3f}", "", "", "")
    for one in report.kept:
        table.add_row(f"{one.full_heads} ({one.budget:.0%})", f"{one.accuracy:.3f}", *_controls(one))
    return table


def _controls(kept: KeptAccuracy) -> Iterable[str]:
    found = kept.controls
    return (f"{x:.3f}" for x in (sum(found) / len(found), min(found), max(found))) if found else ("—",) * 3


def _indent(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2))
