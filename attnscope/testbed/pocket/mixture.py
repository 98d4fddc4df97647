"""The training stream: rows of token ids with a weight for every token, a pure function of (seed, step).

BOS stands at position 0 of every row and nowhere else; documents inside a row are separated by EOS.
"""

from __future__ import annotations

import multiprocessing as mp
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attnscope.tasks import _world as world
from attnscope.testbed.pocket.config import Recipe, Shares
from attnscope.testbed.pocket.tokenizer import BOS_ID, EOS_ID, read_corpus

Doc = tuple[list[int], list[float]]
Encode = Callable[[str], list[int]]
QUIET = 0.1


def word_encoder(tokenizer_file: Path) -> Encode:
    """An encoder that remembers words: exact, because no token ever crosses the space before a word."""
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(tokenizer_file))
    known: dict[str, list[int]] = {}
    split = re.compile(r" ?[^ ]+").findall

    def encode(text: str) -> list[int]:
        out: list[int] = []
        for word in split(text):
            ids = known.get(word)
            if ids is None:
                ids = known[word] = tok.encode(word, add_special_tokens=False).ids
            out += ids
        return out

    return encode


def _doc(parts: list[tuple[list[int], float]]) -> Doc:
    ids, weights = [], []
    for piece, weight in parts:
        ids += piece
        weights += [weight] * len(piece)
    return ids, weights


def facts_doc(rng: random.Random, enc: Encode, answer: float) -> Doc:
    """A few facts, none in its held-out wording."""
    parts = [(enc("Fact:"), QUIET)]
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        entity, relation = rng.choice(world.FACTS)
        held_out = world.held_out_wording(entity, relation)
        wording = rng.choice([w for w in range(4) if w != held_out])
        parts.append((enc(" " + world.fact_stem(entity, relation, wording)), QUIET))
        parts.append((enc(" " + world.fact_value(entity, relation)), answer))
        parts.append((enc("."), QUIET))
    return _doc(parts)


def puzzle_doc(rng: random.Random, enc: Encode, answer: float) -> Doc:
    """A puzzle of the training split with one or more of its questions."""
    made = world.puzzle(rng, "train")
    parts = [(enc(f"Puzzle: {' '.join(made.statements)}"), QUIET)]
    for question, reply in made.questions[: rng.choice((1, 2, 3))]:
        parts.append((enc(f" {question} Answer:"), QUIET))
        parts.append((enc(f" {reply}"), answer))
        parts.append((enc("."), QUIET))
    return _doc(parts)


def repeat_doc(rng: random.Random, vocab: int, room: int) -> Doc:
    """Random tokens, twice: only the second copy can be known."""
    n = rng.randint(16, max(17, min(200, room // 2)))
    ids = [rng.randrange(2, vocab) for _ in range(n)]
    return ids + ids, [0.0] * n + [1.0] * n


def needle_doc(rng: random.Random, enc: Encode, prose: Any, room: int, answer: float, fill: bool) -> Doc:
    """Prose with one to four needles, and each one's beginning as a question."""
    count = rng.choice((1, 1, 2, 3))
    needles: dict[str, world.NeedleText] = {}
    while len(needles) < count:
        made = world.needle_text(rng, "train")
        needles[made.stem] = made
    stems = {s: enc(" " + s) for s in needles}
    values = {s: enc(n.value) for s, n in needles.items()}
    dot = enc(".")
    used = sum(2 * (len(stems[s]) + len(values[s]) + 1) for s in needles)
    most = max(20, room - used)
    size = most if fill else rng.randint(20, min(most, 600))
    start = rng.randrange(len(prose) - size)
    hay = prose[start : start + size].tolist()
    cuts = sorted((world.place_after_sentence(hay, rng.randint(0, size), frozenset(dot)), s) for s in needles)
    parts, last = [], 0
    for cut, stem in cuts:
        parts += [(hay[last:cut], 1.0), (stems[stem], QUIET), (values[stem], 0.0), (dot, QUIET)]
        last = cut
    parts.append((hay[last:], 1.0))
    order = list(needles)
    rng.shuffle(order)
    for stem in order:
        parts += [(stems[stem], QUIET), (values[stem], answer), (dot, QUIET)]
    return _doc(parts)


def row(rng: random.Random, enc: Encode, prose: Any, length: int, shares: Shares, r: Recipe) -> Doc:
    """One row of exactly `length` tokens."""
    u = rng.random()
    if u < shares.prose:
        start = rng.randrange(len(prose) - length)
        return [BOS_ID, *prose[start : start + length - 1].tolist()], [1.0] * length
    ids, weights = [BOS_ID], [0.0]
    if u < shares.prose + shares.long_needle:
        size = length - 1 if rng.random() < 0.5 else rng.randint(length // 8, length - 1)
        got, w = needle_doc(rng, enc, prose, size, float(r.answer_weight), fill=True)
        ids, weights = [*ids, *got, EOS_ID], [*weights, *w, QUIET]
    kinds = ("puzzles", "facts", "needles", "repeats")
    mean = {"puzzles": 70, "facts": 40, "needles": 350, "repeats": 210}
    odds = [getattr(shares, k) / mean[k] for k in kinds]
    while len(ids) < length:
        room = length - len(ids)
        kind = rng.choices(kinds, odds)[0]
        if kind == "puzzles":
            got, w = puzzle_doc(rng, enc, float(r.answer_weight))
        elif kind == "facts":
            got, w = facts_doc(rng, enc, float(r.answer_weight))
        elif kind == "repeats":
            got, w = repeat_doc(rng, r.vocab, room)
        elif room > 150:
            got, w = needle_doc(rng, enc, prose, room, float(r.answer_weight), fill=False)
        else:
            continue
        ids, weights = [*ids, *got, EOS_ID], [*weights, *w, QUIET]
    return ids[:length], weights[:length]


def batch(seed: int, step: int, enc: Encode, prose: Any, length: int, r: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Step number `step` of the stream: ids and weights, [rows, length]."""
    rng = random.Random(f"{seed}:{step}")
    shares = r.long_shares if length == r.long else r.shares
    made = [row(rng, enc, prose, length, shares, r) for _ in range(max(1, r.tokens_per_step // length))]
    return np.array([m[0] for m in made], np.uint16), np.array([m[1] for m in made], np.float16)


def _encode_piece(job: tuple[str, str]) -> np.ndarray:
    from tokenizers import Tokenizer

    return np.array(Tokenizer.from_file(job[0]).encode(job[1], add_special_tokens=False).ids, np.uint16)


def encode_corpus(corpus: Path, tokenizer_file: Path, out: Path, processes: int) -> Path:
    """Tokenise a corpus into one .npy file of 16-bit ids."""
    text, size = read_corpus(corpus), 500_000
    jobs = [(str(tokenizer_file), text[i : i + size]) for i in range(0, len(text), size)]
    with mp.get_context("fork").Pool(processes) as pool:
        np.save(out, np.concatenate(pool.map(_encode_piece, jobs)), allow_pickle=False)
    return out


def _work(queue: Any, seed: int, first: int, by: int, length: int, files: tuple[Path, Path], r: Recipe) -> None:
    enc, prose = word_encoder(files[0]), np.load(files[1], mmap_mode="r", allow_pickle=False)
    step = first
    while True:
        queue.put(batch(seed, step, enc, prose, length, r))
        step += by


class Stream:
    """Batches of one length, made ahead by worker processes, in an order that depends on the seed alone."""

    def __init__(self, seed: int, start: int, length: int, files: tuple[Path, Path], r: Recipe, workers: int) -> None:
        context = mp.get_context("fork")
        self.queues = [context.Queue(6) for _ in range(workers)]
        self.processes = [
            context.Process(target=_work, args=(q, seed, start + i, workers, length, files, r), daemon=True)
            for i, q in enumerate(self.queues)
        ]
        for process in self.processes:
            process.start()
        self.at = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        got = self.queues[self.at % len(self.queues)].get()
        self.at += 1
        return got

    def close(self) -> None:
        """Stop the workers."""
        for process in self.processes:
            process.terminate()
