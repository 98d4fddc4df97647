"""Your own clean and corrupt prompts, from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ._pairs import pair_row, pair_set

if TYPE_CHECKING:
    from datasets import Dataset

FIELDS = ("prompt", "corrupt", "answer", "wrong")


@dataclass(frozen=True)
class Pairs:
    """Pairs of a .jsonl file: one object a line with `prompt`, `corrupt`, `answer`, `wrong`.

    A pair set: `input_ids`, `corrupt_ids`, `answer_ids`, `wrong_ids`, `prompt`, `corrupt`, `answer`, `wrong`, and
    `end_position`. Answers are the text that follows the prompt, so they mostly begin with a space.

    Attributes:
        source: path of the file.
        n: pairs at most, from the first line on; None takes all.

    Raises:
        TaskError: no such file, a line that is no such object, or pairs that cannot be used, each named.

    Example:
        >>> from attnscope.tasks.pairs import Pairs
        >>> Pairs("/nowhere.jsonl").rows(None)
        Traceback (most recent call last):
        attnscope.core.errors.TaskError: pairs /nowhere.jsonl: found no such file; expected a .jsonl file
    """

    name: ClassVar[str] = "pairs"
    source: str
    n: int | None = None

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise TaskError("pairs n", found=self.n, expected="at least 1")

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only."""
        path = Path(self.source)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
            raise TaskError(f"pairs {path}", found=reason, expected="a .jsonl file") from error
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            if line.strip() and (self.n is None or len(rows) < self.n):
                prompt, corrupt, answer, wrong = _read(f"pairs {path}, line {number}", line)
                row = pair_row(tokenizer, prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong)
                if tokenizer is not None:
                    row["end_position"] = len(row["input_ids"]) - 1
                rows.append(row)
        if not rows:
            raise TaskError(f"pairs {path}", found="no pairs", expected="one JSON object a line")
        return rows

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.source, self.rows(tokenizer))


def _read(where: str, line: str) -> list[str]:
    wanted = f"an object with the texts {', '.join(FIELDS)}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TaskError(where, found=f"no JSON ({error})", expected=wanted) from error
    if not isinstance(row, dict) or not all(isinstance(row.get(field), str) and row[field] for field in FIELDS):
        raise TaskError(where, found=repr(line[:80]), expected=wanted)
    return [row[field] for field in FIELDS]
