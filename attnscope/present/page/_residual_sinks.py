"""Residual sink dimensions and massive activations."""

from __future__ import annotations

from ...core.report import Missing
from ...core.sink_report import SinkReport
from ..figures.effects import effects_height
from ..views.residual_sinks import ResidualSinkView, residual_sink_view
from ..views.sink_summary import COMMAND
from ..wording import number
from . import _markup as m
from ._sinks import percent

LISTED = 20
"""Massive activations listed."""


def residual_section(report: SinkReport) -> str:
    """Return the dimensions, what norms read, interventions, quantisation and massive activations."""
    lede = (
        "Dimensions of the residual stream that are large on most tokens. They may matter by what they contribute, or "
        "by rescaling all other dimensions inside every norm; both are measured apart."
    )
    view = residual_sink_view(report)
    if isinstance(view, Missing):
        return m.section("residual-sinks", "Residual sinks", lede, m.panel(m.not_measured(view.reason)))
    reads = m.not_measured("no norm was read")
    if view.reads:
        bound, direct = m.chart("residual-bound", 340), m.chart("residual-direct", 340)
        if all(read.bound is None for read in view.reads):
            bound += '<p class="note">These norms subtract a mean, so the bound does not hold for them.</p>'
        reads = (
            f'<div class="two stretch">{m.panel(bound, "Rescaling: norm output under its bound")}'
            f"{m.panel(direct, 'Rescaling or contribution')}</div>"
        )
    scores = m.chart("residual-reads", 340) if view.reads else m.not_measured("no norm was read")
    top = (
        f'<div class="two stretch">{m.panel(_dimensions(view), "Dimensions")}'
        f"{m.panel(scores, 'Largest dimension at every norm')}</div>"
    )
    tests = (
        f'<div class="two stretch">{m.panel(_effects(view), "Interventions on what norms read")}'
        f"{m.panel(_bars(view), 'Quantisation to 4 bits')}</div>"
    )
    body = f'<div class="stack">{top}{reads}{tests}{m.panel(_massive(view), "Massive activations")}</div>'
    return m.section("residual-sinks", "Residual sinks", lede, body)


def _dimensions(view: ResidualSinkView) -> str:
    if not view.dimensions:
        return '<p class="note">No dimension passes the thresholds below.</p>'
    rows = (
        (str(d.dimension), number(d.score), f"{d.reads} of {len(view.reads)}", number(d.mean_abs), number(d.weight),
         m.text(d.writer or "—"))
        for d in view.dimensions
    )  # fmt: skip
    columns = ("Dimension", "× median", "Largest in", "Mean |x|", "Norm weight", "Writer")
    logits = ""
    if view.logits_direct is not None:
        logits = f'<p class="note">{percent(view.logits_direct)} of the spread of the logits comes through them.</p>'
    note = '<p class="note">Norm weight: over the largest of its norm, median. Largest in: norm reads.</p>'
    return m.table(columns, rows, right=(0, 1, 2, 3, 4)) + logits + note


def _effects(view: ResidualSinkView) -> str:
    if not view.effects:
        return m.not_measured(f"no dimension was changed; {COMMAND}")
    notes = "".join(f'<p class="note">Not measured: {m.text(reason)}</p>' for reason in view.unmeasured)
    return m.chart("residual-effects", effects_height(len(view.effects))) + notes


def _bars(view: ResidualSinkView) -> str:
    if not view.bars:
        return m.not_measured(f"the model was not quantised; {COMMAND}")
    note = '<p class="note">Weights and activations, round to nearest, groups of 128. Whisker: range over draws.</p>'
    return m.chart("residual-bars", 300) + note


def _massive(view: ResidualSinkView) -> str:
    source = m.citation("2402.17762", "https://arxiv.org/abs/2402.17762")
    rule = f'<p class="note">{m.text(view.massive_rule)} of its hidden state ({source}).</p>'
    if not view.massive:
        return f'<p class="note">No activation passes.</p>{rule}'
    rows = (
        (str(a.layer), str(a.prompt), f"{a.position:,}", str(a.dimension), number(a.value), number(a.ratio))
        for a in view.massive[:LISTED]
    )
    columns = ("Block output", "Prompt", "Position", "Dimension", "Value", "× median |x|")
    more = f" The {LISTED} largest of {len(view.massive):,}." if len(view.massive) > LISTED else ""
    return m.table(columns, rows, right=(0, 1, 2, 3, 4, 5)) + rule + (f'<p class="note">{more}</p>' if more else "")
