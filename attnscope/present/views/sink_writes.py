"""Who writes each level of sinks, and what happens when the write is rescaled or removed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from ...core.sink_report import CurvePoint, ResidualEvidence, SinkReport, WriteTest
from .effects import Effect
from .points import point
from .sink_levels import level_rows


@dataclass(frozen=True)
class WriterView:
    """What modules added to the sinks of one level along their own direction, mean over the level's sinks.

    Attributes:
        level: name of the level.
        modules: names, in the order of the forward pass; the last one may be all others together.
        along: projections; they sum to `norm`.
        norm: mean norm of the residual at the first block.
        writer: the module that most sinks name, with how many do.
        neurons: how many MLP neurons give 90% of the write, median; None where that was not measured.
    """

    level: str
    modules: tuple[str, ...]
    along: tuple[float, ...]
    norm: float
    n_sinks: int
    writer: str | None
    neurons: int | None


@dataclass(frozen=True)
class WriteView:
    """One write that was rescaled and removed, with random controls beside it."""

    level: str
    module: str
    curve: tuple[CurvePoint, ...]
    effect: Effect
    neurons_removed: int | None
    loss_without_neurons: float | None


def module_name(module: str, layer: int) -> str:
    """Return how a module is called.

    Example:
        >>> module_name("mlp", 3), module_name("embedding", -1)
        ('MLP 3', 'embedding')
    """
    return module if layer < 0 else f"{'MLP' if module == 'mlp' else module} {layer}"


def writer_views(report: SinkReport, most: int = 9, levels: int = 6) -> list[WriterView]:
    """Return the contributions to the levels that have any.

    Args:
        report: the report.
        most: bars a level at most; the smallest contributions are joined beyond that.
        levels: levels at most, those with most sinks.
    """
    found = []
    fullest = sorted(level_rows(report), key=lambda row: -row.n_sinks)[:levels]
    for row in sorted(fullest, key=lambda row: row.index):
        held = [s.residual for s in report.sinks if s.level == row.index and isinstance(s.residual, ResidualEvidence)]
        written = [residual for residual in held if residual.contributions]
        if written:
            found.append(_writer(row.name, written, most))
    return found


def write_views(report: SinkReport) -> list[WriteView]:
    """Return every write test, in the report's order."""
    names = {row.index: row.name for row in level_rows(report)}
    return [_write(test, names.get(test.level, f"level {test.level}")) for test in report.writes]


def _writer(level: str, held: list[ResidualEvidence], most: int) -> WriterView:
    sums: dict[tuple[int, int, str], float] = defaultdict(float)
    for residual in held:
        for item in residual.contributions:
            sums[item.layer, int(item.module == "mlp"), item.module] += item.along / len(held)
    largest = sorted(sums, key=lambda key: -abs(sums[key]))[: most if len(sums) <= most else most - 1]
    shown = [(module_name(key[2], key[0]), sums[key]) for key in sorted(largest)]
    rest = [key for key in sums if key not in largest]
    if rest:
        shown.append((f"{len(rest)} others", sum(sums[key] for key in rest)))
    writers = Counter(module_name(r.writer.module, r.writer.layer) for r in held if r.writer is not None)
    counts = sorted(len(r.writer.neurons) for r in held if r.writer is not None and r.writer.neurons is not None)
    name = None
    if writers:
        module, count = writers.most_common(1)[0]
        name = f"{module} ({count} of {len(held)} sinks)"
    return WriterView(
        level=level,
        modules=tuple(module for module, _ in shown),
        along=tuple(along for _, along in shown),
        norm=sum(sums.values()),
        n_sinks=len(held),
        writer=name,
        neurons=counts[len(counts) // 2] if counts else None,
    )


def _write(test: WriteTest, level: str) -> WriteView:
    change = point(test.loss_change)
    module = module_name(test.module, test.layer)
    controls = (
        ("random write of the same norm", test.control_changes),
        ("same module, random positions", test.random_positions_changes),
    )
    effect = Effect(f"{level}: without {module}", test.loss_change.value, change.low, change.high, controls)
    curve = tuple(sorted(test.curve, key=lambda item: item.factor))
    return WriteView(level, module, curve, effect, test.neurons_removed, test.loss_without_neurons)
