"""A change of the loss beside the changes of its random controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """One change of the mean next-token loss, nats a token.

    Attributes:
        name: what was changed.
        value, low, high: the change and its interval.
        controls: name of a control → its change in every random draw.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    controls: tuple[tuple[str, tuple[float, ...]], ...]

    @property
    def apart(self) -> bool | None:
        """Whether the change is above every draw of every control; None without a draw."""
        draws = [draw for _, values in self.controls for draw in values]
        return None if not draws else self.value > max(draws)

    @property
    def verdict(self) -> str:
        """The same in words."""
        words = {True: "above every random control", False: "not above every random control", None: "no control"}
        return words[self.apart]
