"""Registries: a folder's files by name, imported only when asked for, and entry points for outsiders."""

from __future__ import annotations

import difflib
import pkgutil
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from .errors import UnknownNameError


@dataclass(frozen=True)
class Registry:
    """The named things of one package: one public file each, plus entry points of group `package`.

    The file `received_mass.py` holds the object `ReceivedMass`, or the object named `attribute` where that is given.

    Attributes:
        package: import path of the folder, for example `attnscope.collectors`; also the entry-point group.
        kind: what one is called in messages, for example `collector`.
        attribute: name of the object in each file; None means the file's name in CamelCase.

    Example:
        >>> "induction" in Registry("attnscope.collectors", "collector").names()
        True
    """

    package: str
    kind: str
    attribute: str | None = None

    def names(self) -> list[str]:
        """Return every name in order, without importing any of the files."""
        return sorted(self._files() | set(self._entry_points()))

    def get(self, name: str) -> Any:
        """Import the one file with this name and return its object.

        Raises:
            UnknownNameError: nothing has this name; the message suggests the nearest.
        """
        if name in self._files():
            return getattr(import_module(f"{self.package}.{name}"), self.attribute or camel_case(name))
        points = self._entry_points()
        if name in points:
            return points[name].load()
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.5)
        raise UnknownNameError(
            f"{self.kind} {name!r}",
            found="nothing with this name",
            expected=f"one of {', '.join(self.names())}",
            fix=f"Did you mean {' or '.join(near)}?" if near else None,
        )

    def _files(self) -> set[str]:
        spec = find_spec(self.package)
        locations = list(spec.submodule_search_locations or []) if spec else []
        return {module.name for module in pkgutil.iter_modules(locations) if not module.name.startswith("_")}

    def _entry_points(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group=self.package)}


def camel_case(name: str) -> str:
    """Return `ReceivedMass` for `received_mass`."""
    return "".join(part.capitalize() for part in name.split("_"))
