"""Small tokenizers made on the spot: one like GPT-2's, one of whole words, one of bytes, one with digits in threes."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from attnscope.tasks import colored_objects, greater_than, ioi

BOS = "<|endoftext|>"
FRAME = (
    "and went to the gave came handed were in passed got showed ran threw left for sold stayed at lent worked brought "
    "On there is a What colour Next I see Which does have Somebody left on of There are three things Tell me "
    "lasted from year it that"
).split()


def gpt2_like(words: Iterable[str], starts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows centuries behind a space, and every two digits.

    Args:
        words: one token each behind a space; longer words fall into pieces.
        starts: one token each where a text starts.
    """
    merges = [(f"Ġ{word[:end]}" if end else "Ġ", word[end]) for word in words for end in range(len(word))]
    digits = "0123456789"
    merges += [("Ġ", "1"), *(("Ġ1", digit) for digit in digits), *((a, b) for a in digits for b in digits)]
    merges += [(word[:end], word[end]) for word in starts for end in range(1, len(word))]
    return _fast(list(dict.fromkeys(merges)), pre_tokenizers.ByteLevel(add_prefix_space=False))


def bytes_only() -> PreTrainedTokenizerFast:
    """Every byte is a token, so every word after a space starts with the same one."""
    return _fast([], pre_tokenizers.ByteLevel(add_prefix_space=False))


def llama3_like() -> PreTrainedTokenizerFast:
    """Digits in threes from the left, apart from the space before them; words are bytes but for known ones."""
    digits = "0123456789"
    two = [(a, b) for a in digits for b in digits]
    merges = [*two, *((f"{a}{b}", c) for a, b in two for c in digits)]
    split = pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated")
    return _fast(merges, pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def whole_words(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word, without BOS; every other word is unknown."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _fast(merges: list[tuple[str, str]], split: object) -> PreTrainedTokenizerFast:
    tokens = [BOS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)


def for_pair_sets() -> PreTrainedTokenizerFast:
    """A tokenizer like GPT-2's that knows the words of the pair sets, but only 12 of the names."""
    lists = (ioi.SITES, ioi.THINGS, colored_objects.COLOURS, colored_objects.THINGS, colored_objects.SITES)
    words = [*FRAME, *ioi.PEOPLE[:12], *greater_than.NOUNS[:5], *(word for words in lists for word in words)]
    return gpt2_like(words, [template.split()[0] for template in ioi.TEMPLATES])


def differing(row: dict) -> list[int]:
    """The positions in which the sides of a pair differ."""
    return [i for i, (a, b) in enumerate(zip(row["input_ids"], row["corrupt_ids"], strict=True)) if a != b]
