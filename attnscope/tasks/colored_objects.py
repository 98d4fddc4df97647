"""Coloured objects: three things of three colours, and a question about one of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ._pairs import pair_row, pair_set
from ._words import fill, token_at, usable_words

if TYPE_CHECKING:
    from datasets import Dataset

TEMPLATES: tuple[str, ...] = (
    "Question: On the {site} there is a {c0} {o0}, a {c1} {o1} and a {c2} {o2}. What colour is the {asked}? Answer:",
    "Question: Next to the {site} I see a {c0} {o0}, a {c1} {o1} and a {c2} {o2}. "
    "Which colour does the {asked} have? Answer:",
    "Question: Somebody left a {c0} {o0}, a {c1} {o1} and a {c2} {o2} on the {site}. "
    "What is the colour of the {asked}? Answer:",
    "Question: There are three things on the {site}: a {c0} {o0}, a {c1} {o1} and a {c2} {o2}. "
    "Tell me the colour of the {asked}. Answer:",
)
COLOURS = tuple("red blue green black white brown yellow grey pink purple gold silver".split())
THINGS = tuple("pen cup key book ball box hat lamp ring bag coin bell knife phone map plate".split())
SITES = tuple("desk table floor shelf chair bed wall sofa".split())


@dataclass(frozen=True)
class ColoredObjects:
    """Questions for the colour of one of three things (the second task of 2310.08744, in our own wordings).

    A pair set: `input_ids`, `corrupt_ids`, `answer_ids`, `wrong_ids`, `prompt`, `corrupt`, `answer`, `wrong`; the
    corrupt prompt asks for another of the three things, and `wrong` is that thing's colour. Also `asked_position` (of
    the asked thing in the question), `answer_position` and `wrong_position` (of the two colours in the list),
    `end_position`, `template`, `asked` (0 to 2, its place in the list).

    Attributes:
        n: pairs.
        seed: of colours, things, places and wordings.
        templates: indices into `TEMPLATES` to draw from; None takes all.

    Raises:
        TaskError: a parameter is out of range, or the tokenizer leaves too few words.

    Example:
        >>> from attnscope.tasks.colored_objects import ColoredObjects
        >>> row = ColoredObjects(n=1).rows(None)[0]
        >>> row["answer"] in row["prompt"] and row["wrong"] in row["corrupt"]
        True
    """

    name: ClassVar[str] = "colored_objects"
    n: int = 100
    seed: int = 0
    templates: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise TaskError("colored_objects n", found=self.n, expected="at least 1")
        if not self.chosen or not all(0 <= index < len(TEMPLATES) for index in self.chosen):
            expected = f"indices from 0 to {len(TEMPLATES) - 1}"
            raise TaskError("colored_objects templates", found=self.templates, expected=expected)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The templates that prompts are drawn from."""
        return tuple(range(len(TEMPLATES))) if self.templates is None else self.templates

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only."""
        colours = usable_words(tokenizer, COLOURS, 3, "colours", answers=True)
        things = usable_words(tokenizer, THINGS, 3, "things")
        sites = usable_words(tokenizer, SITES, 2, "places")
        rng, rows = random.Random(f"colored objects:{self.seed}"), []
        for _ in range(self.n):
            template, (asked, other) = rng.choice(self.chosen), rng.sample(range(3), 2)
            shown = rng.sample(colours, 3)
            items = rng.sample(things, 3)
            words = {f"c{i}": shown[i] for i in range(3)} | {f"o{i}": items[i] for i in range(3)}
            words["site"] = rng.choice(sites)
            prompt, starts = fill(TEMPLATES[template], {**words, "asked": items[asked]})
            corrupt, _ = fill(TEMPLATES[template], {**words, "asked": items[other]})
            answer, wrong = f" {shown[asked]}", f" {shown[other]}"
            row = pair_row(tokenizer, prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong)
            row |= {"template": template, "asked": asked}
            if tokenizer is not None:
                row["asked_position"] = token_at(tokenizer, prompt, starts["asked"])
                row["answer_position"] = token_at(tokenizer, prompt, starts[f"c{asked}"])
                row["wrong_position"] = token_at(tokenizer, prompt, starts[f"c{other}"])
                row["end_position"] = len(row["input_ids"]) - 1
            rows.append(row)
        return rows

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.name, self.rows(tokenizer))
