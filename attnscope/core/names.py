"""The fixed names: dimensions, head scores and head labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

DIMS: dict[str, str] = {
    "prompt": "index in the prompt set",
    "layer": "0-based layer that holds attention",
    "head": "0-based query head",
    "kv_head": "0-based key/value head",
    "block": "0-based block of the residual stream",
    "site": "where the residual stream is read",
    "position": "0-based token position",
    "anchor": "0-based early position that others are compared with",
    "length": "prompt length, tokens",
    "distance_bin": "query position minus key position, lower edge, tokens",
    "chunk": "RoPE frequency chunk",
    "budget": "keys a query may keep",
    "choice": "how a query's keys are chosen",
    "task": "prompt set by name",
    "rank": "0 = largest",
    "dimension": "0-based residual-stream dimension",
    "read": "norm that reads the residual stream, as 'mlp 3', in order of depth",
    "module": "what adds to the residual stream, as 'mlp 3', or the embedding",
    "split": "share of the budget that goes to columns",
    "sink_kind": "primary, secondary, or another sink",
    "row": "block of queries",
    "step": "0-based training step",
    "column": "block of keys",
    "side": "attention or MLP of a block",
    "neuron": "0-based MLP neuron",
}

ScoreName = Literal[
    "first_token_mass",
    "sink_mass",
    "sink_rate",
    "received_max",
    "previous_token",
    "duplicate_token",
    "induction",
    "echo",
    "local_mass",
    "mean_distance",
    "entropy",
    "entropy_normalized",
    "max_prob",
    "positional_share",
    "value_norm_ratio",
    "value_drain",
    "retrieval",
    "copying",
    "importance",
    "recall_effect",
    "reasoning_effect",
]
LabelName = Literal[
    "sink",
    "local",
    "previous_token",
    "duplicate_token",
    "induction",
    "retrieval",
    "recall",
    "reasoning",
    "positional",
    "unclassified",
]
SCORES: tuple[str, ...] = get_args(ScoreName)
LABELS: tuple[str, ...] = get_args(LabelName)


@dataclass(frozen=True)
class Variable:
    """What one statistic is: its dims (names of DIMS), units, long name and source.

    Attributes:
        name: name in the dataset; a head score has the same name as the score.
        dims: in order; every name is one of DIMS.
        units: `1` for a fraction, `nat`, `token`, `percent`, …
        long_name: one phrase for axes and tables.
        source: arXiv id or `definition`.
    """

    name: str
    dims: tuple[str, ...]
    units: str
    long_name: str
    source: str = "definition"
