"""What a format is: an object that reads, writes and fills a file from a finished run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import HeadFile


@dataclass(frozen=True)
class ExportOptions:
    """What a user may ask of an export; a format refuses what it does not use.

    Attributes:
        score: head score of the report to use in place of what the format is made for.
        budget: share of KV heads that become 1, all others 0; 0..1.
        top: heads to list.
    """

    score: str | None = None
    budget: float | None = None
    top: int | None = None

    def only(self, name: str, *allowed: str) -> None:
        """Refuse options that a format does not use.

        Raises:
            ReportError: an option was given that is not in `allowed`.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in allowed:
                takes = ", ".join(f"--{option}" for option in allowed) or "none of --score, --budget, --top"
                raise ReportError(f"option --{field.name}", found=f"an export to {name}", expected=takes)


class HeadFormat(Protocol):
    """One file format.

    Attributes:
        name: in the registry and on the command line.
        title: one phrase for lists.
    """

    name: str
    title: str

    def detect(self, path: Path) -> bool:
        """Whether the path looks like this format; reads little and raises nothing for other files."""

    def read(self, path: Path) -> HeadFile:
        """Read the file or folder.

        Raises:
            ReportError: missing or malformed; names the line or the key.
        """

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write a HeadFile of this format beside its place, then rename it there.

        Raises:
            OutputError: something that is not of this format stands there, or the disk refused.
            ReportError: the HeadFile lacks what the format needs.
        """

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Make the HeadFile from a finished run.

        Raises:
            ReportError: the run lacks what the format needs; names the command that makes it.
        """
