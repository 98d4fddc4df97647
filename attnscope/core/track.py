"""How long work tells its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Takes (what is done, units in all); its context gives a function that takes the units done."""


Progress = Callable[[int, int], None]
"""What measurements call: takes units done and units in all."""


def counted(advance: Callable[[int], None]) -> Progress:
    """Show units done."""
    return lambda done, _total: advance(done)


def percent(advance: Callable[[int], None]) -> Progress:
    """Show hundredths, where the total is known only to the measurement."""
    return lambda done, total: advance(100 * done // total)


def silent(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Tell nothing."""
    return nullcontext(lambda done: None)
