"""Natural text: a user's file, any Hugging Face dataset, or the embedded held-out English."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..core.errors import TaskError
from ._sources import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from datasets import Dataset


@dataclass(frozen=True)
class Text:
    """Prompts of natural text: packed to one length without padding, or one document a prompt.

    Packed prompts take the documents one after another, each prompt starting with BOS where the tokenizer has one; a
    text too short for one whole prompt gives one shorter prompt. Columns: `input_ids`.

    Attributes:
        source: a .txt, .jsonl or .parquet file, or the name of a Hugging Face dataset; None takes the embedded text.
        n: prompts at most.
        length: tokens a prompt, BOS included.
        packing: `packed`, or `documents` (lines of .jsonl, rows of .parquet, a whole .txt).
        truncate: with `documents`, cut longer ones at `length`; otherwise they are an error.
        column: the text column of a .jsonl, .parquet or dataset.
        split: split of a Hugging Face dataset.
        skip: prompts to leave out at the start.

    Raises:
        TaskError: no such file or dataset, not UTF-8, no text, a single token, or a document longer than `length`;
            or the model has no tokenizer.

    Example:
        >>> Text(n=2, length=16).name
        'text'
    """

    name: ClassVar[str] = "text"
    source: str | None = None
    n: int = 16
    length: int = 512
    packing: Literal["packed", "documents"] = "packed"
    truncate: bool = False
    column: str = "text"
    split: str = "train"
    skip: int = 0

    def __post_init__(self) -> None:
        for field, least in (("n", 1), ("length", 2), ("skip", 0)):
            if getattr(self, field) < least:
                raise TaskError(f"text {field}", found=getattr(self, field), expected=f"at least {least}")

    def build(self, tokenizer: Any) -> Dataset:
        """Read, tokenise and pack the text."""
        from datasets import Dataset

        if tokenizer is None:
            raise TaskError(
                "text prompts",
                found="a model without a tokenizer",
                expected="one with a tokenizer",
                fix="Pass one: --tokenizer with a folder or hub id (tokenizer= in Python).",
            )
        documents = (
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in read_documents(self.source, self.column, self.split)
        )
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        make = self._packed if self.packing == "packed" else self._documents
        prompts = []
        for number, prompt in enumerate(make(documents, bos)):
            if number >= self.skip:
                prompts.append(prompt)
            if len(prompts) == self.n:
                break
        if not prompts:
            raise TaskError(
                f"text {self.source or 'of the package'}",
                found="no tokens" if not self.skip else f"fewer than {self.skip + 1} prompts",
                expected="at least two tokens of text",
            )
        if max(map(len, prompts)) - len(bos) < 2:
            raise TaskError(
                f"text {self.source}", found="a single token", expected="at least two tokens, so that one sees another"
            )
        return Dataset.from_dict({"input_ids": prompts})

    def _packed(self, documents: Iterable[list[int]], bos: list[int]) -> Iterator[list[int]]:
        body, buffer, whole = self.length - len(bos), list[int](), False
        for document in documents:
            buffer += document
            while len(buffer) >= body:
                yield bos + buffer[:body]
                buffer, whole = buffer[body:], True
        if buffer and not whole:
            yield bos + buffer

    def _documents(self, documents: Iterable[list[int]], bos: list[int]) -> Iterator[list[int]]:
        for number, document in enumerate(documents):
            prompt = bos + document
            if len(prompt) > self.length and not self.truncate:
                raise TaskError(
                    f"document {number} of {self.source or 'the embedded text'}",
                    found=f"{len(prompt)} tokens",
                    expected=f"at most {self.length}",
                    fix="Allow more tokens with --context, cut documents with --truncate, or leave --documents out.",
                )
            if document:
                yield prompt[: self.length]
