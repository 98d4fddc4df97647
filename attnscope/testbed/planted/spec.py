"""PlantedSpec: what a planted model is to contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from attnscope.core.errors import ModelError
from attnscope.core.ids import HeadId

from ._rules import check_spec
from .vocabulary import Vocabulary

Kind = Literal[
    "sink",
    "previous_token",
    "duplicate_token",
    "induction",
    "retrieval",
    "local",
    "uniform",
    "positional",
    "unclassified",
]
CircuitKind = Literal["recall", "lookup", "second_lookup"]
KINDS: tuple[str, ...] = get_args(Kind)
CIRCUIT_KINDS: tuple[str, ...] = get_args(CircuitKind)


@dataclass(frozen=True)
class PlantedSink:
    """A token that an MLP turns into a massive residual: written by one block's MLP, erased by a later one's.

    The outputs of blocks `layer .. layer + lifetime - 1` are massive at every position that holds the token.

    Attributes:
        token: a token id, or "bos".
        layer: 0-based block whose MLP writes.
        lifetime: how many block outputs stay massive; None means up to the last block.
        norm: l2 norm of what the MLP's down-projection writes (and, to 1%, of the residual).
        fading: later MLPs take the write back in `lifetime` equal steps in place of one, each of them as long as any of
            it is left, so that a write rescaled by n / lifetime lives for n blocks.

    Example:
        >>> PlantedSink("bos", layer=1, lifetime=2, norm=500.0).outputs(n_layers=4)
        range(1, 3)
    """

    token: int | Literal["bos"]
    layer: int
    lifetime: int | None = None
    norm: float = 300.0
    fading: bool = False

    def outputs(self, n_layers: int) -> range:
        """Return the blocks whose outputs are massive at this token."""
        return range(self.layer, n_layers if self.lifetime is None else self.layer + self.lifetime)

    def alive_at(self, layer: int, n_layers: int) -> bool:
        """Return whether the input of block `layer` is massive at this token."""
        return layer - 1 in self.outputs(n_layers)


@dataclass(frozen=True)
class PlantedSpec:
    """A planted model: its shape, and what each query head and MLP does. Checked on construction.

    Attributes:
        n_layers: blocks, >= 1.
        n_heads: query heads per block.
        n_kv_heads: key/value heads per block; divides `n_heads`.
        head_dim: 64 or 128.
        vocab_size: 64..1024 tokens, the special ones included.
        hidden_size: width of the residual stream, 192..1024.
        context_length: tokens up to which the construction holds, 64..4096.
        seed: decides every random choice.
        heads: kind of each query head, a name of `KINDS` or `CIRCUIT_KINDS` (see `circuits`); heads not mentioned are
            "unclassified". The heads of one KV head share their keys, so "duplicate_token" cannot share one with
            "induction", "retrieval" or a look-up.
        far_distance: tokens back that "positional" heads attend to, 16..512 and below `context_length`; the first
            queries, which have no such token, attend to themselves.
        sinks: massive tokens written by MLPs.
        sink_heads_read: "bos": sink heads attend to the first token whatever the MLPs do; "direction": they attend
            to the massive tokens, so that the MLP's write is their cause (needs a BOS sink alive at their input).
        residual_sink: (dimension, magnitude) of a coordinate that is large on every token but BOS, at every depth;
            the norms' weights there are ~0, so that it only rescales.
        knocked_out: planted heads replaced by unclassified ones, everything else untouched.

    Raises:
        ModelError: the specification cannot be built; the message says what to change.

    Example:
        >>> spec = PlantedSpec(heads={HeadId(0, 1): "previous_token", HeadId(1, 0): "induction"})
        >>> spec.kind(HeadId(1, 0)), spec.kind(HeadId(0, 0))
        ('induction', 'unclassified')
        >>> spec == PlantedSpec.from_json(spec.to_json())
        True
    """

    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 64
    vocab_size: int = 192
    hidden_size: int = 192
    context_length: int = 1024
    seed: int = 0
    heads: Mapping[HeadId, str] = field(default_factory=dict, hash=False)
    far_distance: int = 40
    sinks: tuple[PlantedSink, ...] = ()
    sink_heads_read: Literal["bos", "direction"] = "bos"
    residual_sink: tuple[int, float] | None = None
    knocked_out: frozenset[HeadId] = frozenset()

    def __post_init__(self) -> None:
        heads = {HeadId(*head): kind for head, kind in sorted(self.heads.items())}
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "sinks", tuple(self.sinks))
        object.__setattr__(self, "knocked_out", frozenset(HeadId(*head) for head in self.knocked_out))
        check_spec(self, (*KINDS, *CIRCUIT_KINDS))

    @property
    def group_size(self) -> int:
        """Query heads per KV head."""
        return self.n_heads // self.n_kv_heads

    @property
    def circuits(self) -> bool:
        """Whether it holds recall or reasoning heads, and so the tokens of facts and puzzles."""
        return not set(CIRCUIT_KINDS).isdisjoint(self.heads.values())

    @property
    def vocabulary(self) -> Vocabulary:
        """The roles of its tokens."""
        return Vocabulary(self.vocab_size, self.circuits)

    def kind(self, head: HeadId) -> str:
        """Return what the head was planted as (a knocked-out head keeps its kind)."""
        return self.heads.get(head, "unclassified")

    def all_heads(self) -> list[HeadId]:
        """Return every query head in order."""
        return [HeadId(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]

    def of_kind(self, kind: str) -> list[HeadId]:
        """Return the heads planted as this kind, in order."""
        return [head for head in self.all_heads() if self.kind(head) == kind]

    def without(self, head: HeadId) -> PlantedSpec:
        """Return the specification of the twin in which this head is knocked out.

        Raises:
            ModelError: the head was not planted.
        """
        if self.kind(head) == "unclassified":
            planted = ", ".join(map(str, self.heads))
            raise ModelError(f"knock-out of {head}", found="no planted head there", expected=f"one of {planted}")
        return replace(self, knocked_out=self.knocked_out | {head})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "heads": {str(head): kind for head, kind in self.heads.items()},
            "sinks": [
                [sink.token, sink.layer, sink.lifetime, sink.norm, *([True] if sink.fading else [])]
                for sink in self.sinks
            ],
            "residual_sink": list(self.residual_sink) if self.residual_sink else None,
            "knocked_out": [str(head) for head in sorted(self.knocked_out)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlantedSpec:
        """Return the specification that `to_json` wrote."""
        residual_sink = data["residual_sink"]
        return cls(
            **{name: data[name] for name in _PLAIN},
            heads={HeadId.parse(head): kind for head, kind in data["heads"].items()},
            sinks=tuple(PlantedSink(*sink) for sink in data["sinks"]),
            residual_sink=(residual_sink[0], residual_sink[1]) if residual_sink else None,
            knocked_out=frozenset(HeadId.parse(head) for head in data["knocked_out"]),
        )


_PLAIN = (
    *("n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "hidden_size", "context_length", "seed"),
    *("far_distance", "sink_heads_read"),
)
