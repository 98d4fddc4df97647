"""The planted vocabulary: which token ids ask, which are keys, which are answers, and the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .codes import CAPACITY, LENGTH, all_words

BOS, EOS, PAD, UNK = range(4)
SPECIALS = ("<bos>", "<eos>", "<pad>", "<unk>")
N_TOPICS = 4
N_SLOTS = 3  # answer tokens of one needle
ANSWERS_PER_SLOT = 4
N_ENTITIES, N_RELATIONS, N_VALUES, N_NODES = 8, 4, 12, 8
N_CIRCUIT_TOKENS = N_ENTITIES + N_RELATIONS + N_VALUES + 2 * N_NODES


@dataclass(frozen=True)
class Vocabulary:
    """Token ids by role.

    A needle of topic t reads `key[t] a0 link1 a1 link2 a2`, with `ak` from `answers[k]`. The token `ask[t]` looks for
    what follows `key[t]`; an answer of slot k looks for what follows `links[k]`. These are semantic links: the tokens
    have nothing else in common. All other ids are ordinary words.

    With `circuits`, the last `N_CIRCUIT_TOKENS` ids are tokens of facts and puzzles in place of words: entities,
    relations and values of stored facts; and nodes, each as a source ("from0") and as a target ("to0") of a step.

    Example:
        >>> vocabulary = Vocabulary(192)
        >>> vocabulary.ask, vocabulary.key, len(vocabulary.words)
        (range(4, 8), range(8, 12), 166)
        >>> vocabulary.names[4], vocabulary.names[26]
        ('ask0', 'w0')
    """

    size: int
    circuits: bool = False

    @property
    def ask(self) -> range:
        """The question token of each topic."""
        return range(len(SPECIALS), len(SPECIALS) + N_TOPICS)

    @property
    def key(self) -> range:
        """The key token of each topic."""
        return range(self.ask.stop, self.ask.stop + N_TOPICS)

    @property
    def links(self) -> range:
        """The key tokens of answer slots 1, 2, …"""
        return range(self.key.stop, self.key.stop + N_SLOTS - 1)

    @property
    def answers(self) -> list[range]:
        """The answer tokens of each slot."""
        starts = (self.links.stop + slot * ANSWERS_PER_SLOT for slot in range(N_SLOTS))
        return [range(start, start + ANSWERS_PER_SLOT) for start in starts]

    @property
    def words(self) -> range:
        """The ordinary tokens."""
        return range(self.answers[-1].stop, self.size - (N_CIRCUIT_TOKENS if self.circuits else 0))

    @property
    def entities(self) -> range:
        """The tokens that stored facts are about; like the next four, only with `circuits`."""
        return range(self.words.stop, self.words.stop + N_ENTITIES)

    @property
    def relations(self) -> range:
        """The tokens that ask for a fact about the entity before them."""
        return range(self.entities.stop, self.entities.stop + N_RELATIONS)

    @property
    def values(self) -> range:
        """The answers of stored facts."""
        return range(self.relations.stop, self.relations.stop + N_VALUES)

    @property
    def sources(self) -> range:
        """Every node where a step of a puzzle starts; at the end of a prompt it asks where two steps lead."""
        return range(self.values.stop, self.values.stop + N_NODES)

    @property
    def targets(self) -> range:
        """Every node where a step of a puzzle leads, in the order of `sources`."""
        return range(self.sources.stop, self.sources.stop + N_NODES)

    @cached_property
    def names(self) -> list[str]:
        """The text of every token."""
        return [
            *SPECIALS,
            *(f"ask{topic}" for topic in range(N_TOPICS)),
            *(f"key{topic}" for topic in range(N_TOPICS)),
            *(f"link{slot}" for slot in range(1, N_SLOTS)),
            *(f"answer{slot}{chr(97 + index)}" for slot in range(N_SLOTS) for index in range(ANSWERS_PER_SLOT)),
            *(f"w{index}" for index in range(len(self.words))),
            *(self._circuit_names() if self.circuits else ()),
        ]

    def _circuit_names(self) -> list[str]:
        roles = {
            "entity": self.entities,
            "relation": self.relations,
            "value": self.values,
            "from": self.sources,
            "to": self.targets,
        }
        return [f"{role}{index}" for role, tokens in roles.items() for index in range(len(tokens))]

    def asked(self) -> dict[int, int]:
        """Return the key token that each asking token looks for."""
        links = dict(zip(self.ask, self.key, strict=True))
        for answers, link in zip(self.answers, self.links):
            links |= dict.fromkeys(answers, link)
        return links

    def codes(self, rng: np.random.Generator) -> np.ndarray:
        """Return a code per token, `[size, 32]`, zero for BOS."""
        codes = all_words()[rng.permutation(CAPACITY)[: self.size]].copy()
        codes[BOS] = np.zeros(LENGTH)
        return codes


def build_tokenizer(vocab_size: int, circuits: bool = False) -> PreTrainedTokenizerFast:
    """Return the tokenizer of planted models: words between spaces, BOS in front.

    Args:
        vocab_size: tokens.
        circuits: whether the last ones are those of facts and puzzles.

    Example:
        >>> tokenizer = build_tokenizer(192)
        >>> tokenizer("w0 ask1").input_ids
        [0, 26, 5]
        >>> tokenizer.decode([26, 5])
        'w0 ask1'
    """
    names = Vocabulary(vocab_size, circuits).names
    model = models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
