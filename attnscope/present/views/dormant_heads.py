"""On which prompts each head is dormant: a head may rest on one prompt and work on another."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.sink_report import SinkReport


@dataclass(frozen=True)
class DormantView:
    """The heads that change most from prompt to prompt.

    Attributes:
        heads: their names, the one with the largest range first.
        values: `[heads][prompts]` fraction of dormant queries, 0..1; None where it was not measured.
        hidden: heads that were left out.
    """

    heads: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    hidden: int


def dormant_view(report: SinkReport, most: int = 16) -> DormantView | None:
    """Return the heads whose dormancy differs most between prompts; None where no head was measured on two prompts.

    Args:
        report: the report.
        most: heads at most.
    """
    spread = []
    for head in report.heads:
        told = [value for value in head.dormant_by_prompt if value is not None]
        if len(told) > 1:
            spread.append((max(told) - min(told), head))
    if not spread:
        return None
    spread.sort(key=lambda item: (-item[0], item[1].layer, item[1].head))
    shown = [head for _, head in spread[:most]]
    return DormantView(
        heads=tuple(f"L{head.layer}H{head.head}" for head in shown),
        values=tuple(head.dormant_by_prompt for head in shown),
        hidden=len(spread) - len(shown),
    )
