"""Needles at every length × depth × wording, alone or among other needles, in your own text or the embedded one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..core.errors import TaskError
from . import _world as world
from ._needles import NeedleText, NeedleTokens, lay, tokens_of
from ._sources import read_documents

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["code", "word", "key_value"]
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class NeedleGrid:
    """Retrieval prompts for every length and depth: the evaluation of 2404.15574 on needles that we or you write.

    Columns: those of `needle` (`input_ids` without the answer, `answer_ids`, `source_positions`, `depth`, `length`,
    `kind`, `template`, `prompt`, `answer`) and `others`, how many other needles stand in the prompt. Positions are
    known by construction. A needle whose answer the tokenizer joins with its neighbours is left out, see `notes`.

    Attributes:
        lengths: tokens of prompt and answer together.
        depths: 0 (start) to 1 (end).
        repeats: prompts a length and depth; the wordings take turns.
        kind: sentence needles with a `code` or a `word`, or `key_value` lines; ignored with your own needles.
        others: other needles of the same kind in the prompt, with other keys, at depths of their own.
        haystack: your own text, as `text` takes it; None takes the embedded English.
        needles: your own needles, a .jsonl with `needle`, `answer` (which stands once in it) and `question`.
        seed: of keys, values and places.
        split: wordings and keys of the pocket model's training or test items.

    Raises:
        TaskError: a parameter is out of range, a file is missing or malformed, too little text for a length, or the
            tokenizer joins every answer with its neighbours.

    Example:
        >>> NeedleGrid(lengths=(512,), depths=(0.0, 1.0)).cells
        [(512, 0.0), (512, 1.0)]
    """

    name: ClassVar[str] = "needle_grid"
    lengths: tuple[int, ...] = (512, 1024)
    depths: tuple[float, ...] = DEPTHS
    repeats: int = 2
    kind: Kind = "code"
    others: int = 0
    haystack: str | None = None
    needles: str | None = None
    seed: int = 0
    split: world.Split = "test"

    def __post_init__(self) -> None:
        if not self.lengths or not self.depths or self.repeats < 1:
            raise TaskError("needle grid", found="no cells", expected="lengths, depths and repeats")
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise TaskError("needle depths", found=self.depths, expected="0 (start) to 1 (end)")
        if self.kind not in ("code", "word", "key_value"):
            raise TaskError("needle kind", found=repr(self.kind), expected="'code', 'word' or 'key_value'")
        if self.others < 0:
            raise TaskError("other needles", found=self.others, expected="0 or more")

    @property
    def n(self) -> int:
        """Prompts, before those whose needle the tokenizer joins with its neighbours are left out."""
        return len(self.cells) * self.repeats

    @property
    def cells(self) -> list[tuple[int, float]]:
        """Every (length, depth), in order."""
        return [(length, depth) for length in self.lengths for depth in self.depths]

    @property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return max(self.lengths)

    def build(self, tokenizer: Any) -> Dataset:
        """Return the prompts."""
        return self.build_with_notes(tokenizer)[0]

    def build_with_notes(self, tokenizer: Any) -> tuple[Dataset, tuple[str, ...]]:
        """Return the prompts, and what a report must say about those that were left out."""
        from datasets import Dataset

        rows, joined = [], 0
        prose = world.encode(tokenizer, "\n".join(read_documents(self.haystack, "text", "train")))
        drawn = self._needles()
        rng = random.Random(f"needle grid:{self.split}:{self.seed}")
        for length, depth in self.cells:
            for _ in range(self.repeats):
                chosen = self._distinct(drawn)
                read = [tokens_of(tokenizer, one) for one in chosen]
                if read[0] is None or any(one is None for one in read):
                    joined += 1
                    continue
                rows.append(self._row(tokenizer, rng, prose, length, depth, chosen, read))  # type: ignore[arg-type]
        if not rows:
            raise TaskError(
                "needle grid",
                found=f"a tokenizer that joins the answer of each of {joined} needles with its neighbours",
                expected="answers that begin and end at a token",
                fix="Write your own needles (needles=) with an answer between spaces.",
            )
        notes: tuple[str, ...] = ()
        if joined:
            notes = (f"{joined} of {self.n} needles were left out: the tokenizer joins their answer with a neighbour.",)
        return Dataset.from_list(rows), notes

    def _row(
        self,
        tokenizer: Any,
        rng: random.Random,
        prose: list[int],
        length: int,
        depth: float,
        texts: list[NeedleText],
        read: list[NeedleTokens],
    ) -> dict[str, Any]:
        if length > len(prose):
            raise TaskError(
                f"needle length {length}",
                found=f"a haystack of {len(prose)} tokens",
                expected="more text than the length",
                fix="Give more text as haystack.",
            )
        places = [depth, *(rng.random() for _ in read[1:])]
        row = lay(
            tokenizer, prose, rng.randrange(len(prose) - length + 1), length, list(zip(places, read, strict=True))
        )
        bos = len(world.with_bos(tokenizer, []))
        asked = texts[0]
        return row | {
            "prompt": tokenizer.decode(row["input_ids"][bos:]),
            "answer": asked.answer.strip(),
            "kind": asked.kind,
            "template": asked.template,
            "others": len(read) - 1,
        }

    def _distinct(self, drawn: Iterator[NeedleText]) -> list[NeedleText]:
        """Draw the asked needle and the others, no two of one key or one answer."""
        chosen = [next(drawn)]
        for _ in range(1000 * self.others):
            if len(chosen) > self.others:
                break
            one = next(drawn)
            if all(one.key != other.key and one.answer != other.answer for other in chosen):
                chosen.append(one)
        if len(chosen) <= self.others:
            raise TaskError("other needles", found=f"{len(chosen)} with different keys", expected=self.others + 1)
        return chosen

    def _needles(self) -> Iterator[NeedleText]:
        if self.needles is not None:
            own = read_needles(self.needles)
            while True:
                yield from own
        rng, i = random.Random(f"needles:{self.split}:{self.seed}:{self.kind}"), 0
        while True:
            yield _key_value(rng) if self.kind == "key_value" else _sentence(rng, self.split, self.kind, i)
            i += 1


def _sentence(rng: random.Random, split: world.Split, kind: Any, i: int) -> NeedleText:
    made = world.needle_text(rng, split, kind, i % len(world.NEEDLE_STEMS))
    return NeedleText(f" {made.stem}", made.value, ".", f" {made.stem}", made.key, made.template, made.kind)


def _key_value(rng: random.Random) -> NeedleText:
    key = "".join(rng.choice("0123456789abcdef") for _ in range(6))
    value = "".join(rng.sample("0123456789", 5))
    return NeedleText(f"\n{key}:", f" {value}", "\n", f"\n{key}:", key, 0, "key_value")


def read_needles(path: str | Path) -> list[NeedleText]:
    """Return the needles of a .jsonl file: one object a line with `needle`, `answer` and `question`.

    Raises:
        TaskError: no such file, a line that is no such object, or an answer that does not stand once in its needle.

    Example:
        >>> read_needles("/nowhere.jsonl")
        Traceback (most recent call last):
        attnscope.core.errors.TaskError: needles /nowhere.jsonl: found no such file; expected a .jsonl file
    """
    place = Path(path)
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
        raise TaskError(f"needles {place}", found=reason, expected="a .jsonl file") from error
    found = [_read_line(f"needles {place}, line {i}", line, i) for i, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise TaskError(f"needles {place}", found="no needles", expected="one JSON object a line")
    return found


def _read_line(where: str, line: str, number: int) -> NeedleText:
    wanted = "an object with the texts needle, answer and question"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TaskError(where, found=f"no JSON ({error})", expected=wanted) from error
    if not isinstance(row, dict) or not all(
        isinstance(row.get(k), str) and row[k] for k in ("needle", "answer", "question")
    ):
        raise TaskError(where, found=repr(line[:80]), expected=wanted)
    needle, answer = row["needle"], row["answer"].strip()
    if not answer or needle.count(answer) != 1:
        raise TaskError(
            where, found=f"the answer {needle.count(answer) if answer else 0} times in the needle", expected="once"
        )
    before, after = needle.split(answer)
    space = " " if before.endswith(" ") else ""
    before = " " + before.removesuffix(" ") if before else ""
    return NeedleText(before, space + answer, after, " " + row["question"].rstrip(), f"line {number}", number - 1)
