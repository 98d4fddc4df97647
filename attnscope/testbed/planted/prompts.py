"""Prompts for planted models: needles behind semantic links, repeats, and text-like tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from attnscope.core.errors import TaskError

from .spec import PlantedSpec
from .vocabulary import BOS, N_SLOTS, N_TOPICS

NEEDLE_LENGTH = 2 * N_SLOTS
SHORTEST = NEEDLE_LENGTH + 4 * (N_TOPICS - 1) + 4 + N_SLOTS


def needle_prompts(spec: PlantedSpec, n: int, length: int, seed: int = 0) -> Dataset:
    """Return needle-in-a-haystack prompts that only a retrieval head can answer.

    The haystack is random words, with distractors of the other topics (a key and an answer). The needle reads
    `key a0 link1 a1 link2 a2`; the prompt ends with the question token of its topic. The answer is `a0 a1 a2`: the
    question token and each answer token but the last look for the next answer, so greedy decoding gives all of it.
    On the prompt itself an induction head finds nothing. After it, each answer token is a repeat, so an induction head
    looks at the link behind its first copy, never at a source position.

    Args:
        spec: the planted model's specification.
        n: number of prompts; depths are spread evenly over them.
        length: tokens of prompt (with BOS and the question) and answer together, `SHORTEST` .. context length.
        seed: decides every token.

    Returns:
        Columns `input_ids` (with BOS), `answer_ids`, `prompt` and `answer` (text; the tokenizer adds BOS),
        `source_positions` (position in `input_ids` of each answer token in the needle), `query_positions` (position
        in `input_ids + answer_ids` of the query that picks it: `len(input_ids) - 1 + k`), `depth` (0..1), `length`.

    Raises:
        TaskError: no such prompts at this length.

    Example:
        >>> row = needle_prompts(PlantedSpec(), 1, 64)[0]
        >>> [row["input_ids"][i] for i in row["source_positions"]] == row["answer_ids"], row["query_positions"]
        (True, [60, 61, 62])
    """
    _check(spec, n, length, SHORTEST, spec.context_length)
    vocabulary, rng = spec.vocabulary, np.random.default_rng([seed, 11])
    names = vocabulary.names
    rows = []
    for index in range(n):
        depth = index / max(n - 1, 1)
        topic = int(rng.integers(N_TOPICS))
        answers = [int(rng.choice(slot)) for slot in vocabulary.answers]
        others = [token for token in vocabulary.answers[0] if token != answers[0]]
        needle = [vocabulary.key[topic], answers[0]]
        for link, answer in zip(vocabulary.links, answers[1:]):
            needle += [link, answer]
        facts = [[vocabulary.key[t], int(rng.choice(others))] for t in range(N_TOPICS) if t != topic]
        free = length - N_SLOTS - 2 - NEEDLE_LENGTH - 2 * len(facts)
        start = round(depth * free)
        where = sorted(int(place) for place in rng.choice(free + 1, len(facts), replace=False))
        body: list[int] = []
        source = 0
        for place in range(free + 1):
            if place == start:
                source = len(body) + 1
                body += needle
            body += facts[where.index(place)] if place in where else []
            if place < free:
                body.append(int(rng.choice(vocabulary.words)))
        prompt = [BOS, *body, vocabulary.ask[topic]]
        rows.append(
            {
                "input_ids": prompt,
                "answer_ids": answers,
                "prompt": " ".join(names[token] for token in prompt[1:]),
                "answer": " ".join(names[token] for token in answers),
                "source_positions": [source + 1 + 2 * slot for slot in range(N_SLOTS)],
                "query_positions": [len(prompt) - 1 + slot for slot in range(N_SLOTS)],
                "depth": depth,
                "length": length,
            }
        )
    return Dataset.from_list(rows)


def repeat_prompts(spec: PlantedSpec, n: int, period: int, seed: int = 0) -> Dataset:
    """Return BOS and `period` different random words, twice.

    Columns: `input_ids`, `prompt`, `period` (tokens a copy), `copies` (2), `prefix` (1: BOS).


    Raises:
        TaskError: no such prompts at this length.

    Example:
        >>> row = repeat_prompts(PlantedSpec(), 1, 50)[0]
        >>> len(row["input_ids"]), row["input_ids"][1:51] == row["input_ids"][51:]
        (101, True)
    """
    words = spec.vocabulary.words
    _check(spec, n, period, 2, min(len(words), (spec.context_length - 1) // 2))
    rng = np.random.default_rng([seed, 12])
    rows = [[BOS, *(2 * rng.choice(words, period, replace=False).tolist())] for _ in range(n)]
    return Dataset.from_list([{**_row(spec, row), "period": period, "copies": 2, "prefix": 1} for row in rows])


def text_prompts(spec: PlantedSpec, n: int, length: int, seed: int = 0) -> Dataset:
    """Return BOS and random words with the word frequencies of text (Zipf): columns `input_ids`, `prompt`.

    Raises:
        TaskError: no such prompts at this length.

    Example:
        >>> len(text_prompts(PlantedSpec(), 2, 128)[1]["input_ids"])
        128
    """
    _check(spec, n, length, 2, spec.context_length)
    words, rng = spec.vocabulary.words, np.random.default_rng([seed, 13])
    frequencies = 1 / (np.arange(len(words)) + 5)
    frequencies /= frequencies.sum()
    rows = [[BOS, *rng.choice(words, length - 1, p=frequencies).tolist()] for _ in range(n)]
    return Dataset.from_list([_row(spec, row) for row in rows])


def _row(spec: PlantedSpec, tokens: list[int]) -> dict[str, Any]:
    names = spec.vocabulary.names
    return {"input_ids": tokens, "prompt": " ".join(names[token] for token in tokens[1:])}


def _check(spec: PlantedSpec, n: int, length: int, low: int, high: int) -> None:
    if n < 1:
        raise TaskError("planted prompts", found=n, expected="at least 1")
    if not low <= length <= high:
        raise TaskError("length of planted prompts", found=length, expected=f"{low} to {high} tokens")
