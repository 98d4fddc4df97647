"""Circuits ablated together: drops beside random controls, accuracy over circuit size, transfer to another task."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.circuit_report import CircuitDrop, CircuitReport, Dissociation, Selectivity, Transfer
from ..tokens import visible
from ..wording import capital
from .circuit_units import LEVEL_WORDS
from .points import Point, point
from .retrieval_curves import Compared, ComparedLine

RULES = {"effect": "by effect", "selective": "by selective effect"}
"""How units are ranked: by the effect on the circuit's task, or by that minus the effect on the other."""
VERDICTS = {
    "double": "double dissociation",
    "first only": "only the {first} circuit is selective",
    "second only": "only the {second} circuit is selective",
    "none": "no dissociation",
}


@dataclass(frozen=True)
class DropBar:
    """Share of right answers that one task loses without one circuit, with every draw of the random control."""

    circuit: str
    task: str
    drop: Point
    draws: tuple[float, ...]


@dataclass(frozen=True)
class DissociationSide:
    """One circuit; `own` and `other` are its drops, `delta` the difference.

    Attributes:
        delta_draws: delta of every random draw.
        certain: delta's interval is above 0 and delta above every draw; None without interval or control.
    """

    circuit: str
    units: tuple[str, ...]
    own: DropBar
    other: DropBar
    delta: Point
    delta_draws: tuple[float, ...]
    selective: bool
    certain: bool | None

    @property
    def verdict(self) -> str:
        """Whether it is selective, and whether that is certain, in words."""
        if not self.selective:
            return "not selective by these thresholds"
        ends = {
            True: ", and Δ is above 0 and above every random draw",
            False: ", but Δ is not above 0 and every random draw",
            None: ", without a control or interval to compare Δ with",
        }
        return f"selective{ends[self.certain]}"


@dataclass(frozen=True)
class DissociationView:
    """One double dissociation, as it was found.

    Attributes:
        title: level, sizes and ranking.
        verdict: in words.
        sentence: the thresholds, in words.
    """

    level: str
    title: str
    sides: tuple[DissociationSide, DissociationSide]
    verdict: str
    double: bool
    sentence: str
    layer_matched: bool

    @property
    def bars(self) -> tuple[DropBar, ...]:
        """All four drops: the first circuit's own and other, then the second's."""
        return tuple(bar for side in self.sides for bar in (side.own, side.other))


@dataclass(frozen=True)
class TransferRow:
    """One edit taken from one task and measured on another; text is plain."""

    edit: str
    source: str
    task: str
    units: tuple[str, ...]
    before: Point
    after: Point
    change: Point
    p: float | None
    control: Point
    draws: tuple[float, ...]

    @property
    def beyond(self) -> bool | None:
        """Whether the accuracy after it is above that of every random draw; None without one."""
        return None if not self.draws or self.after.value is None else self.after.value > max(self.draws)


def dissociation_views(report: CircuitReport) -> list[DissociationView]:
    """Return every dissociation, in the report's order."""
    return [_view(item) for item in report.dissociations]


def circuit_lines(report: CircuitReport, level: str) -> list[ComparedLine]:
    """Return accuracy over circuit size at one level: one line for each rule, circuit and task measured."""
    own = [item for item in report.curves if item.level == level]
    rules = {item.rule for item in own}
    lines = []
    for rule, circuit, task in dict.fromkeys((item.rule, item.circuit, item.task) for item in own):
        items = [item for item in own if (item.rule, item.circuit, item.task) == (rule, circuit, task)]
        how = f" ({RULES[rule]})" if len(rules) > 1 else ""
        title = f"{visible(circuit, 60)} circuit{how} ablated: accuracy on {visible(task, 60)}"
        steps = sorted(items, key=lambda item: len(item.units))
        lines.append(ComparedLine(f"{rule} {circuit} {task}", title, tuple(map(_step, steps))))
    return lines


def curve_levels(report: CircuitReport) -> list[str]:
    """Return the levels that have curves."""
    return list(dict.fromkeys(item.level for item in report.curves))


def transfer_rows(report: CircuitReport) -> list[TransferRow]:
    """Return every transfer, in the report's order."""
    return [_row(item) for item in report.transfers]


def _view(item: Dissociation) -> DissociationView:
    one, many = LEVEL_WORDS[item.level]
    first, second = _side(item.first), _side(item.second)
    sizes = {len(item.first.units), len(item.second.units)}
    size = f"{max(sizes)} {one if max(sizes) == 1 else many} a circuit" if len(sizes) == 1 else many
    names = {"first": first.circuit, "second": second.circuit}
    return DissociationView(
        level=item.level,
        title=f"{capital(size)}, {RULES[item.rule]}, {visible(item.ablation)} ablation",
        sides=(first, second),
        verdict=VERDICTS[item.verdict].format(**names),
        double=item.verdict == "double",
        sentence=(
            f"Selective: costs its own task at least {100 * item.least_drop:g} points and the other at most "
            f"{100 * item.most_other:g}."
        ),
        layer_matched=item.layer_matched,
    )


def _side(item: Selectivity) -> DissociationSide:
    circuit, other = visible(item.circuit, 60), visible(item.other, 60)
    return DissociationSide(
        circuit=circuit,
        units=tuple(map(visible, item.units)),
        own=DropBar(circuit, circuit, point(item.own_drop), tuple(draw[0] for draw in item.control)),
        other=DropBar(circuit, other, point(item.other_drop), tuple(draw[1] for draw in item.control)),
        delta=point(item.delta),
        delta_draws=tuple(draw[2] for draw in item.control),
        selective=item.selective,
        certain=item.certain,
    )


def _step(item: CircuitDrop) -> Compared:
    return Compared(
        x=float(len(item.units)),
        heads=tuple(map(visible, item.units)),
        accuracy=point(item.accuracy),
        change=point(item.change),
        control=point(item.control),
        draws=item.control_draws,
        higher=False,
        layer_matched=item.layer_matched,
    )


def _row(item: Transfer) -> TransferRow:
    return TransferRow(
        edit=visible(item.edit, 200),
        source=visible(item.source, 60),
        task=visible(item.task, 60),
        units=tuple(map(visible, item.units)),
        before=point(item.before),
        after=point(item.after),
        change=point(item.change),
        p=item.p,
        control=point(item.control),
        draws=item.control_draws,
    )
