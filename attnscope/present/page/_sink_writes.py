"""Who writes the sinks, and what happens when the write is rescaled or removed."""

from __future__ import annotations

from ...core.sink_report import SinkReport
from ..figures.effects import effects_height
from ..figures.sink_writes import writers_height
from ..views.sink_summary import COMMAND
from ..views.sink_writes import WriterView, WriteView, write_views, writer_views
from ..wording import number
from . import _markup as m


def writers_section(report: SinkReport) -> str:
    """Return what each module adds to the sinks of each level."""
    views = writer_views(report)
    lede = (
        "What each module added along the sink's own direction, up to the first block whose output is a sink. The bars "
        "of a level sum to the norm; a negative bar works against it."
    )
    if not views:
        return m.section("sink-writers", "Who writes them", lede, m.panel(m.not_measured("no sink has contributions")))
    items = "".join(f"<li>{_writer(view)}</li>" for view in views)
    left = len(report.levels) - len(views)
    more = f'<p class="note">Levels not drawn, with fewer sinks or without contributions: {left}.</p>' if left else ""
    body = m.panel(f'{m.chart("sink-writers", writers_height(views))}<ul class="note">{items}</ul>{more}')
    return m.section("sink-writers", "Who writes them", lede, body)


def _writer(view: WriterView) -> str:
    neurons = f"; {view.neurons:,} MLP neurons (median) give 90% of the write" if view.neurons is not None else ""
    return m.text(f"{view.level}: written most by {view.writer or 'no module that was measured'}{neurons}")


def tests_section(report: SinkReport) -> str:
    """Return the write tests beside their controls, and the curves over the norm."""
    views = write_views(report)
    lede = "The write that makes a sink is rescaled, and removed; random writes and random positions are the control."
    if not views:
        body = m.panel(m.not_measured(f"no write was changed; {COMMAND}"))
        return m.section("sink-tests", "What happens without them", lede, body)
    effects = m.panel(m.chart("sink-effects", effects_height(len(views))), "Change of the loss without the write")
    curves = (
        m.chart("sink-curves", 380)
        if any(view.curve for view in views)
        else m.not_measured(f"no write was rescaled; {COMMAND}")
    )
    neurons = [_neurons(view) for view in views if view.neurons_removed is not None]
    items = f'<ul class="note">{"".join(neurons)}</ul>' if neurons else ""
    body = f'<div class="stack">{effects}{m.panel(curves + items, "Attention, lifetime and loss over the norm")}</div>'
    return m.section("sink-tests", "What happens without them", lede, body)


def _neurons(view: WriteView) -> str:
    n = view.neurons_removed
    loss = "the loss was not measured"
    if view.loss_without_neurons is not None:
        loss = f"the loss is {number(view.loss_without_neurons)} nats a token"
    words = f"{view.level}: with the {n} neuron{'s' if n != 1 else ''} of the write in {view.module} set to 0, {loss}"
    return f"<li>{m.text(words)}</li>"
