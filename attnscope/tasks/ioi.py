"""Indirect object identification: who gets the thing that one of two people gives?"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..core.errors import TaskError
from . import _world as world
from ._pairs import pair_row, pair_set
from ._words import fill, token_at, usable_words

if TYPE_CHECKING:
    from datasets import Dataset

Corruption = Literal["abc", "s2", "swap"]
CORRUPTIONS: tuple[Corruption, ...] = ("abc", "s2", "swap")
_WORDINGS = (
    "When {first} and {second} went to the {place}, {S2} gave the {object} to",
    "After {first} and {second} came to the {place}, {S2} handed the {object} to",
    "While {first} and {second} were in the {place}, {S2} passed the {object} to",
    "Once {first} and {second} got to the {place}, {S2} showed the {object} to",
    "As {first} and {second} ran to the {place}, {S2} threw the {object} to",
    "Before {first} and {second} left for the {place}, {S2} sold the {object} to",
    "Because {first} and {second} stayed at the {place}, {S2} lent the {object} to",
    "Since {first} and {second} worked at the {place}, {S2} brought the {object} to",
)
TEMPLATES: tuple[str, ...] = tuple(
    wording.replace("{first}", first).replace("{second}", second)
    for wording in _WORDINGS
    for first, second in (("{S1}", "{IO}"), ("{IO}", "{S1}"))
)
"""Every wording twice: BABA (the subject first, even index) and ABBA (the indirect object first, odd index)."""

PEOPLE = tuple(
    "John Mary Tom James Paul Anna Peter Sarah Mark Laura David Kate Adam Emma Simon Lucy Henry Alice George Jane "
    "Robert Helen Frank Rose Jack Ruth Daniel Grace Martin Julia Kevin Rachel Eric Susan Brian Linda Scott Maria "
    "Andrew Nancy Michael Karen Charles Amy Ryan Lisa Steven Diana Patrick Carol".split()
)
SITES = tuple("shops school station garden market office library park hospital house hotel beach church farm".split())
THINGS = tuple("bag book key letter ring box ball map phone cup coin knife watch picture".split())


@dataclass(frozen=True)
class IOI:
    """Two people, one gives the other something: the answer is the name that stands once (2211.00593).

    A pair set: `input_ids`, `corrupt_ids`, `answer_ids` (IO), `wrong_ids` (S), `prompt`, `corrupt`, `answer`, `wrong`;
    and `io_position`, `s1_position`, `s2_position` (of each name's first token), `end_position`, `template` (index
    into `TEMPLATES`). Our own wordings; all have 14 words and commas, so a tokenizer that knows the words makes 15
    tokens of every prompt, BOS counted.

    Attributes:
        n: pairs.
        seed: of names, places, objects and wordings.
        corruption: `abc` puts three other names (2211.00593); `s2` puts IO in the place of the second subject; `swap`
            exchanges the two names everywhere. After `s2` and `swap` the right answer is S.
        templates: indices into `TEMPLATES` to draw from; None takes all.

    Raises:
        TaskError: a parameter is out of range, or the tokenizer leaves too few names, places or objects.

    Example:
        >>> from attnscope.tasks.ioi import IOI
        >>> row = IOI(n=1, corruption="s2", templates=(0,)).rows(None)[0]
        >>> row["prompt"].count(row["wrong"]), row["corrupt"].count(row["answer"])
        (2, 2)
    """

    name: ClassVar[str] = "ioi"
    n: int = 100
    seed: int = 0
    corruption: Corruption = "abc"
    templates: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise TaskError("ioi n", found=self.n, expected="at least 1")
        if self.corruption not in CORRUPTIONS:
            raise TaskError("ioi corruption", found=repr(self.corruption), expected=f"one of {', '.join(CORRUPTIONS)}")
        if not self.chosen or not all(0 <= index < len(TEMPLATES) for index in self.chosen):
            raise TaskError("ioi templates", found=self.templates, expected=f"indices from 0 to {len(TEMPLATES) - 1}")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The templates that prompts are drawn from."""
        return tuple(range(len(TEMPLATES))) if self.templates is None else self.templates

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only."""
        people, sites, things = _words(tokenizer)
        rng, rows = random.Random(f"ioi:{self.seed}"), []
        for _ in range(self.n):
            template, names = rng.choice(self.chosen), rng.sample(people, 5)
            rest = {"place": rng.choice(sites), "object": rng.choice(things)}
            io, s = names[:2]
            swapped = {
                "abc": dict(zip(("IO", "S1", "S2"), names[2:], strict=True)),
                "s2": {"IO": io, "S1": s, "S2": io},
                "swap": {"IO": s, "S1": io, "S2": io},
            }[self.corruption]
            prompt, starts = fill(TEMPLATES[template], {"IO": io, "S1": s, "S2": s, **rest})
            corrupt, _ = fill(TEMPLATES[template], {**swapped, **rest})
            row = pair_row(tokenizer, prompt=prompt, corrupt=corrupt, answer=f" {io}", wrong=f" {s}", template=template)
            if tokenizer is not None:
                for slot in ("IO", "S1", "S2"):
                    row[f"{slot.lower()}_position"] = token_at(tokenizer, prompt, starts[slot])
                row["end_position"] = len(row["input_ids"]) - 1
            rows.append(row)
        return rows

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.name, self.rows(tokenizer))

    def reference(self, tokenizer: Any, per_template: int = 32) -> Dataset:
        """Return prompts with three different names, over which 2211.00593 averages a head's output by template.

        Columns: `input_ids`, `prompt`, `template`, `end_position`. The prompts of a template have one length, so means
        can be taken position by position.

        Args:
            tokenizer: of the model.
            per_template: prompts of each template, at least 1.

        Raises:
            TaskError: no prompts were asked for, or the tokenizer leaves too few words.
        """
        from datasets import Dataset

        if per_template < 1:
            raise TaskError("ioi reference per_template", found=per_template, expected="at least 1")
        people, sites, things = _words(tokenizer)
        rng, rows = random.Random(f"ioi reference:{self.seed}"), []
        for template in sorted(set(self.chosen)):
            for _ in range(per_template):
                names = dict(zip(("IO", "S1", "S2"), rng.sample(people, 3), strict=True))
                words = {**names, "place": rng.choice(sites), "object": rng.choice(things)}
                prompt, _ = fill(TEMPLATES[template], words)
                ids = world.with_bos(tokenizer, world.encode(tokenizer, prompt))
                rows.append({"input_ids": ids, "prompt": prompt, "template": template, "end_position": len(ids) - 1})
        return Dataset.from_list(rows)


def _words(tokenizer: Any) -> tuple[list[str], list[str], list[str]]:
    return (
        usable_words(tokenizer, PEOPLE, 6, "ioi names", answers=True),
        usable_words(tokenizer, SITES, 2, "ioi places"),
        usable_words(tokenizer, THINGS, 2, "ioi objects"),
    )


Ioi = IOI  # the registry's name for ioi.py
