"""Several sentences to remember in one context, all asked for at its end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ..core.paths import data_path
from . import _world as world

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Passkeys:
    """Retrieval with several needles at different depths, on which gates are trained (2410.10819 uses ten).

    The prompt is prose with `needles` codes in it; then each one's beginning stands again, in random order, with its
    answer. The answers are part of `input_ids`, but for the last token of the last one.

    Columns: `input_ids` (BOS first), `query_positions` (the position that predicts each answer token) and `target_ids`
    (the answer tokens), `source_positions` (where each one stands in its needle), `depths` (0..1, of each question),
    `length` (tokens of the whole).

    Attributes:
        n: prompts.
        seed: of everything random.
        split: which keys and wordings may appear.
        length: tokens of prompt and answers together.
        needles: codes a prompt; their depths are drawn from as many equal parts of the context.
        haystack: prose; None takes the embedded English.

    Raises:
        TaskError: sizes below 1, an unknown split, or no room for the needles.

    Example:
        >>> Passkeys(n=2, length=512, needles=3).needles
        3
    """

    name: ClassVar[str] = "passkeys"
    n: int = 32
    seed: int = 0
    split: world.Split = "train"
    length: int = 1024
    needles: int = 3
    haystack: str | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise TaskError("passkeys split", found=repr(self.split), expected="'train' or 'test'")
        if self.n < 1 or self.needles < 1:
            raise TaskError("passkeys", found=f"{self.n} prompts of {self.needles} needles", expected="at least 1 each")

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the items as plain dictionaries."""
        text = self.haystack
        if text is None:
            text = data_path("pocket/heldout.txt").read_text(encoding="utf-8")
        prose = world.encode(tokenizer, text)
        rng = random.Random(f"passkeys:{self.split}:{self.seed}:{self.length}:{self.needles}")
        return [self._row(tokenizer, rng, prose) for _ in range(self.n)]

    def _row(self, tokenizer: Any, rng: random.Random, prose: list[int]) -> dict[str, Any]:
        made: dict[str, world.NeedleText] = {}
        while len(made) < self.needles:
            one = world.needle_text(rng, self.split, "code")
            made[one.stem] = one
        stems = [world.encode(tokenizer, f" {one.stem}") for one in made.values()]
        values = [world.encode(tokenizer, one.value) for one in made.values()]
        dot = world.encode(tokenizer, ".")
        bos = world.with_bos(tokenizer, [])
        taken = 2 * sum(len(stem) + len(value) + len(dot) for stem, value in zip(stems, values)) - len(dot)
        room = self.length - len(bos) - taken
        if room < 8 * self.needles or room >= len(prose):
            raise TaskError(
                f"passkeys of {self.length} tokens",
                found=f"room for {room} tokens of a haystack of {len(prose)} beside {self.needles} needles",
                expected=f"at least {8 * self.needles}, and fewer than the haystack has",
                fix="Change the length or the number of needles, or give more text as haystack.",
            )
        start = rng.randrange(len(prose) - room)
        hay = prose[start : start + room]
        depths = [(place + rng.random()) / self.needles for place in range(self.needles)]
        ends = frozenset((dot[-1],))
        cuts = accumulate((world.place_after_sentence(hay, round(depth * room), ends) for depth in depths), max)
        ids, sources = list(bos), []
        for place, (low, high) in enumerate(pairwise([0, *cuts, room])):
            ids += hay[low:high]
            if place < self.needles:
                first = len(ids) + len(stems[place])
                sources.append(list(range(first, first + len(values[place]))))
                ids += [*stems[place], *values[place], *dot]
        return self._asked(rng, ids, stems, values, dot, sources, depths)

    def _asked(
        self,
        rng: random.Random,
        ids: list[int],
        stems: list[list[int]],
        values: list[list[int]],
        dot: list[int],
        sources: list[list[int]],
        depths: list[float],
    ) -> dict[str, Any]:
        order = rng.sample(range(self.needles), self.needles)
        queries: list[int] = []
        for place in order:
            ids += stems[place]
            queries += range(len(ids) - 1, len(ids) - 1 + len(values[place]))
            ids += [*values[place], *dot]
        ids = ids[: -len(dot)]
        return {
            "input_ids": ids[:-1],
            "query_positions": queries,
            "target_ids": [token for place in order for token in values[place]],
            "source_positions": [position for place in order for position in sources[place]],
            "depths": [depths[place] for place in order],
            "length": len(ids),
        }

    def build(self, tokenizer: Any) -> Dataset:
        """Return the items as a dataset."""
        from datasets import Dataset

        return Dataset.from_list(self.rows(tokenizer))
