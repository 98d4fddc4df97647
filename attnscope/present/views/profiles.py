"""Where a head looks: attention by distance, and what each leading position receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ...core.ids import HeadId
from ...core.report import HeadReport, Missing
from .labels import SPECIFICITY, labels_of, top_heads

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class DistanceProfile:
    """Share of one head's attention in each bin of distance; `edges` are the bins' lower edges in tokens."""

    name: str
    label: str
    edges: tuple[int, ...]
    mass: tuple[float, ...]

    @property
    def bins(self) -> tuple[str, ...]:
        """The bins as text: `0`, `1`, `2–3`, `4–7`, …; the last one is open."""
        return bin_names(self.edges)


def bin_names(edges: Sequence[int]) -> tuple[str, ...]:
    """Return bins as text.

    Example:
        >>> bin_names([0, 1, 2, 4])
        ('0', '1', '2–3', '4+')
    """
    names = []
    for low, high in pairwise(edges):
        names.append(str(low) if high == low + 1 else f"{low}–{high - 1}")
    return (*names, f"{edges[-1]}+") if edges else ()


def distance_profile(
    report: HeadReport, statistics: Mapping[str, xr.Dataset], head: HeadId | str, prompt_set: str = "text"
) -> DistanceProfile | Missing:
    """Return one head's distance profile, or why there is none.

    Raises:
        UnknownHeadError: the model has no such head.
    """
    record, data = report[head], statistics.get(prompt_set)
    if data is None or "mass_by_distance" not in data:
        return Missing(reason=f"no distance profile was collected on {prompt_set!r} (collector mass_by_distance)")
    array = data["mass_by_distance"].sel(layer=record.layer, head=record.head)
    edges = tuple(int(edge) for edge in array.distance_bin.values)
    return DistanceProfile(str(record.id), labels_of(record)[0], edges, tuple(map(float, array.values)))


def received_mass(
    report: HeadReport,
    statistics: Mapping[str, xr.Dataset],
    head: HeadId | str,
    positions: int = 32,
    prompt_set: str = "text",
) -> tuple[float, ...] | Missing:
    """Return the mean attention that each leading position receives a query, or why there is none.

    Raises:
        UnknownHeadError: the model has no such head.
    """
    record, data = report[head], statistics.get(prompt_set)
    if data is None or "received_mass" not in data:
        return Missing(reason=f"no received mass was collected on {prompt_set!r} (collector received_mass)")
    array = data["received_mass"].sel(layer=record.layer, head=record.head)
    return tuple(map(float, array.values[:positions]))


def labelled_profiles(
    report: HeadReport, statistics: Mapping[str, xr.Dataset], per_label: int = 2, limit: int = 12
) -> list[DistanceProfile]:
    """Return profiles of the clearest heads of each label, no head twice, at most `limit` in all.

    Heads whose most specific label it is go first; a label that is nobody's most specific one is shown too.
    """
    found: dict[str, DistanceProfile] = {}
    for label in SPECIFICITY:
        heads = [head for head in top_heads(report, label) if head.name not in found]
        heads.sort(key=lambda head, label=label: head.labels[0] != label)  # type: ignore[misc]
        for head in heads[:per_label]:
            profile = distance_profile(report, statistics, head.name)
            if isinstance(profile, DistanceProfile):
                found[head.name] = replace(profile, label=label)
    return list(found.values())[:limit]
