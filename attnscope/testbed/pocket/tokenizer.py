"""The pocket model's tokenizer: byte-level BPE, digits one by one, BOS on encode."""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnscope.tasks import _world as world

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1


def read_corpus(path: Path) -> str:
    """A text file, plain or compressed with xz."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8", errors="ignore") as file:
        return file.read()


def train_tokenizer(text: str, vocab: int, seed: int = 1) -> Any:
    """Learn the merges from a sample of the text and of the invented world."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(_sample(text, random.Random(seed)), trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tok


def _sample(text: str, rng: random.Random) -> Iterable[str]:
    for _ in range(8000):
        start = rng.randrange(max(1, len(text) - 2000))
        yield text[start : start + 2000]
    words = (*world.PLACES, *world.JOBS, *world.COLOURS, *world.ANIMALS, *world.NAMES)
    words += (*world.OBJECTS, *world.CODE_WORDS, *(w for pair in world.ADJECTIVES for w in pair))
    for word in words:
        yield f" {word}" * 2500
    for digit in "0123456789":
        yield f" {digit}" * 2500
    for entity in world.ENTITIES:
        yield f" {entity}" * 20
    for _ in range(3000):
        yield world.puzzle_prompt(world.puzzle(rng, "train"))


def save_tokenizer(tok: Any, folder: Path, context: int) -> None:
    """Write the files that `AutoTokenizer.from_pretrained` reads."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), encoding="utf-8")
