"""HeadId: the name of one query head."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import UnknownHeadError

_PATTERN = re.compile(r"^L(\d+)H(\d+)$|^(\d+)[-.](\d+)$", re.IGNORECASE)


class HeadId(NamedTuple):
    """A query head, by 0-based layer and 0-based query head; ordered; prints as `L12H5`.

    Example:
        >>> HeadId(12, 5)
        L12H5
        >>> HeadId.parse("3.0") < HeadId.parse("L3H1")
        True
    """

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def parse(cls, text: str) -> HeadId:
        """Read `L12H5`, `12-5` or `12.5` (all: layer 12, query head 5).

        Raises:
            UnknownHeadError: the text names no head.

        Example:
            >>> HeadId.parse("12-5")
            L12H5
        """
        match = _PATTERN.match(text.strip())
        if match is None:
            raise UnknownHeadError(f"head {text!r}", expected="a name such as L12H5, 12-5 or 12.5")
        layer, head = (int(part) for part in match.groups() if part is not None)
        return cls(layer, head)
