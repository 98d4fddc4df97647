"""HeadFile: what a foreign file says of a model's heads, in one neutral, versioned form."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from .frequency_report import Pairing
from .report import read_json

HEAD_FILE_VERSION: Final = 1
Space = Literal["query_head", "kv_head"]
Number = int | float
Grid = tuple[tuple[Number | None, ...], ...]
"""Layers by heads; None where the file gives no value."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _rectangle(rows: tuple[tuple[Any, ...], ...], what: str) -> tuple[int, int]:
    widths = {len(row) for row in rows}
    if len(widths) != 1 or 0 in widths:
        raise ValueError(f"{what}: rows of {sorted(widths)} heads, expected layers of equally many heads")
    return len(rows), widths.pop()


class Grids(_Frozen):
    """Named values of every head; `main` names the one that heads are compared by."""

    kind: Literal["grids"] = "grids"
    main: str
    values: dict[str, Grid] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Grids:
        shapes = {name: _rectangle(grid, name) for name, grid in self.values.items()}
        if self.main not in shapes or len(set(shapes.values())) != 1:
            raise ValueError(f"grids {shapes}, expected equal shapes and one named {self.main!r}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return _rectangle(self.values[self.main], self.main)

    def scores(self) -> np.ndarray:
        """Return the main values `[L, H]`, NaN where the file gives none."""
        return np.array(self.values[self.main], dtype=float)


class Trials(_Frozen):
    """Scores of every trial of every head, in the file's order (2404.15574); the score is their mean."""

    kind: Literal["trials"] = "trials"
    trials: tuple[tuple[tuple[Number, ...], ...], ...] = Field(description="layer, head, trial")

    @model_validator(mode="after")
    def _check(self) -> Trials:
        _rectangle(self.trials, "trials")
        if not all(trials for row in self.trials for trials in row):
            raise ValueError("a head without trials, expected at least one")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return _rectangle(self.trials, "trials")

    def scores(self) -> np.ndarray:
        """Return the means `[L, H]`."""
        return np.array([[float(np.mean(trials)) for trials in row] for row in self.trials])


class Pattern(_Frozen):
    """One head's sparse pattern (2407.02490): which kind, how many columns and diagonals, and its score."""

    name: str
    vertical: int = Field(ge=0)
    slash: int = Field(ge=0)
    score: Number


class Patterns(_Frozen):
    """One sparse pattern for every head."""

    kind: Literal["patterns"] = "patterns"
    patterns: tuple[tuple[Pattern, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> Patterns:
        _rectangle(self.patterns, "patterns")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return _rectangle(self.patterns, "patterns")

    def scores(self) -> np.ndarray:
        """Return the patterns' scores `[L, H]`."""
        return np.array([[float(item.score) for item in row] for row in self.patterns])


class RankedHead(_Frozen):
    """A head of a ranking; a file of head names alone gives no scores."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    score: Number | None = None


class Ranking(_Frozen):
    """Heads from the best down: all of them with scores, or the best few; or every head, without an order."""

    kind: Literal["ranking"] = "ranking"
    heads: tuple[RankedHead, ...] = ()
    every_head: bool = False

    @model_validator(mode="after")
    def _check(self) -> Ranking:
        names = [(item.layer, item.head) for item in self.heads]
        if self.every_head == bool(names) or len(set(names)) != len(names):
            raise ValueError("expected different heads, or every head and no list")
        return self

    @property
    def shape(self) -> tuple[int, int] | None:
        """Layers and heads where the ranking holds them all; None where that cannot be told."""
        if not self.heads:
            return None
        layers, heads = 1 + max(item.layer for item in self.heads), 1 + max(item.head for item in self.heads)
        return (layers, heads) if layers * heads == len(self.heads) else None


class Chunks(_Frozen):
    """Dominant RoPE frequency chunks of every head, the best first (2602.03152).

    `pairing` says which dimensions make a chunk: `rotate_half` (i, i + D/2) and `interleaved` (2i, 2i + 1) are what
    the model turns; `adjacent` is (2i, 2i + 1) whatever it turns, as the paper's code has it.
    """

    kind: Literal["chunks"] = "chunks"
    pairing: Pairing
    n_chunks: int = Field(ge=1, description="chunks of a head, D/2")
    dominant: tuple[tuple[tuple[int, ...], ...], ...] = Field(description="layer, head, rank")
    agreement: tuple[tuple[tuple[float | None, ...], ...], ...] | None = Field(
        default=None, description="contextual agreement by layer, head, chunk"
    )

    @model_validator(mode="after")
    def _check(self) -> Chunks:
        shape = _rectangle(self.dominant, "dominant")
        for layer, row in enumerate(self.dominant):
            for head, chunks in enumerate(row):
                if not chunks or len(set(chunks)) != len(chunks) or not all(0 <= c < self.n_chunks for c in chunks):
                    raise ValueError(f"layer {layer}, head {head}: expected different chunks below {self.n_chunks}")
        if self.agreement is not None:
            widths = {len(item) for row in self.agreement for item in row}
            if _rectangle(self.agreement, "agreement") != shape or widths != {self.n_chunks}:
                raise ValueError(f"agreement of {sorted(widths)} chunks, expected {self.n_chunks} for every head")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return _rectangle(self.dominant, "dominant")


Content = Annotated[Grids | Trials | Patterns | Ranking | Chunks, Field(discriminator="kind")]


class Source(_Frozen):
    """Where a HeadFile was read from."""

    path: str
    sha256: str = Field(description="of the file; of a folder's files one after another, in the order of their names")


class HeadFile(_Frozen):
    """What one file says of a model's heads.

    `n_heads` counts heads of `space`; it and `n_layers` are None where the file does not say how many there are.

    Example:
        >>> file = HeadFile(format="duo_attention", space="kv_head", n_layers=1, n_heads=2,
        ...                 content=Grids(main="gate", values={"gate": ((1.0, 0.25),)}))
        >>> HeadFile.from_json(file.to_json()) == file, file.scores()
        (True, array([[1.  , 0.25]]))
    """

    schema_version: Literal[1] = HEAD_FILE_VERSION
    document: Literal["head_file"] = "head_file"
    format: str
    space: Space
    n_layers: int | None = Field(default=None, ge=1)
    n_heads: int | None = Field(default=None, ge=1)
    model_id: str | None = None
    content: Content
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="what else the file says, as it stands there"
    )
    source: Source | None = None

    @model_validator(mode="after")
    def _check(self) -> HeadFile:
        shape, given = self.content.shape, (self.n_layers, self.n_heads)
        if shape is not None and shape != given:
            raise ValueError(f"content of {shape} layers and heads in a file of {given}")
        if isinstance(self.content, Ranking) and self.n_layers is not None and self.n_heads is not None:
            for item in self.content.heads:
                if item.layer >= self.n_layers or item.head >= self.n_heads:
                    raise ValueError(
                        f"head {item.layer}-{item.head} in a model of {self.n_layers} layers and {self.n_heads} heads"
                    )
        return self

    def scores(self) -> np.ndarray | None:
        """Return one score a head, `[L, H]`, NaN where there is none; None where the file has no scores or no shape."""
        if isinstance(self.content, Chunks):
            return None
        if not isinstance(self.content, Ranking):
            return self.content.scores()
        if self.n_layers is None or self.n_heads is None or any(item.score is None for item in self.content.heads):
            return None
        values = np.full((self.n_layers, self.n_heads), np.nan)
        for item in self.content.heads:
            values[item.layer, item.head] = np.nan if item.score is None else item.score
        return values

    def to_json(self) -> str:
        """Return the file as JSON text; `HeadFile.from_json` reads the identical one back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "head file") -> HeadFile:
        """Read a HeadFile.

        Raises:
            ReportError: not JSON, not a HeadFile, or written by a newer version.
        """
        return read_json(cls, text, where, "an imported head file", HEAD_FILE_VERSION)
