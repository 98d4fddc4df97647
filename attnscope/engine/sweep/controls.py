"""Random units beside chosen ones: as many, of the same kind and the same blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from .units import Unit


def random_units(
    pool: Sequence[Unit], chosen: Sequence[Unit], chooser: np.random.Generator, excluded: Collection[Unit] = ()
) -> tuple[tuple[Unit, ...], bool]:
    """Draw as many other units of each kind from the same blocks, or from the nearest where these hold too few.

    Args:
        pool: units to draw from.
        chosen: the units under test, which no draw takes.
        chooser: of the draws.
        excluded: other units that no draw takes.

    Returns:
        The units (none where the pool is too small), and whether all came from the same blocks.

    Example:
        >>> pool = [Unit("head", layer, head) for layer in range(2) for head in range(3)]
        >>> drawn, matched = random_units(pool, [pool[0]], np.random.default_rng(0))
        >>> drawn[0].layer, drawn[0] != pool[0], matched
        (0, True, True)
    """
    free = [unit for unit in pool if unit not in {*chosen, *excluded}]
    drawn: list[Unit] = []
    matched = True
    for (module, layer), count in sorted(Counter((unit.module, unit.layer) for unit in chosen).items()):
        alike = [unit for unit in free if unit.module == module and unit not in drawn]
        if len(alike) < count:
            return (), False
        wanted = count
        for near in sorted({unit.layer for unit in alike}, key=lambda other: (abs(other - layer), other)):
            here = [unit for unit in alike if unit.layer == near]
            taken = chooser.choice(len(here), min(wanted, len(here)), replace=False)
            drawn += [here[i] for i in taken]
            wanted -= len(taken)
            matched &= near == layer
            if not wanted:
                break
    return tuple(sorted(drawn)), matched
