"""Want → Result: the closed set of reductions of the attention matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from torch import Tensor

from .errors import ContractError


@dataclass(frozen=True, eq=False)
class TopKeys:
    """The k largest attention weights of chosen queries.

    Attributes:
        queries: `[B, N]` query indices; -1 asks for nothing.
        k: keys a query.
    """

    queries: Tensor
    k: int


@dataclass(frozen=True)
class Screen:
    """Find every key that receives much attention from a sample of the queries, then compute those keys exactly.

    The queries are cut into strata and one of each is drawn; the more queries see a key, the larger its strata, up to
    `stride`. A key that receives on average `threshold` or more of the attention of the queries that see it is missed
    with a probability of at most `delta` (Chernoff's bound for independent draws in 0..1), whatever the attention looks
    like. The keys that few queries see, at the end of a causal prompt, are summed over all of them. Where strata stay
    below eight queries (prompts up to about 16,000 tokens), a sample saves nothing and everything is exact.

    Attributes:
        threshold: received mass a query above which a key must be found, 0..1.
        delta: bound on the probability that such a key is missed, for each key.
        stride: queries in the largest strata (a power of two, or less), and the sampling rate of row statistics.
        seed: of the draws.

    Example:
        >>> Screen().threshold
        0.01
    """

    threshold: float = 0.01
    delta: float = 1e-6
    stride: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("threshold", 0, 1), ("delta", 0, 1)):
            if not low < getattr(self, name) < high:
                raise ContractError(f"screen {name}", found=getattr(self, name), expected="between 0 and 1")
        if self.stride < 1:
            raise ContractError("screen stride", found=self.stride, expected="at least 1")


@dataclass(frozen=True, eq=False)
class Want:
    """The closed set of reductions of the attention matrix A `[Tq, Tk]` of every head.

    A[i, j] is the attention weight; a sink logit takes probability from the keys, so rows may sum below 1.

    Attributes:
        output: z = A·V after `head_output`, `[B, H, Tq, Dv]`, of every query, valid or not; A·V is 0 where a query
            sees no key or stands on padding itself.
        lse: natural log of the softmax denominator (sink logit included), `[B, H, Tq]`.
        entropy: of each row in nats, the sink logit being one more outcome, `[B, H, Tq]`.
        max_prob: largest weight of each row, `[B, H, Tq]`.
        mean_distance: Σ_j A[i, j]·|position of i − j| in tokens, `[B, H, Tq]`.
        received: Σ over valid queries of A[i, j], `[B, H, Tk]`.
        received_max: max over valid queries of A[i, j], `[B, H, Tk]`.
        value_norm: ‖v_j‖₂, `[B, G, Tk]`.
        mass_at: name → key indices `[B, Tq]` or `[B, Tq, R]` (summed over R; -1 = no key) → `[B, H, Tq]`.
        mass_in: name → group of each key `[B, Tk]` (0..n-1; -1 = none) → `[B, H, Tq, n]`, n being the largest group
            number present plus one.
        top_keys: name → TopKeys → weights and keys, `[B, H, N, k]` each, largest weight first; k may exceed Tk.
        mass_by_distance: bin edges in tokens, increasing; bin e holds edges[e] <= distance < edges[e+1]; summed
            over valid queries, `[B, H, len(edges) - 1]`.
        pooled_map: (rows, columns): mean over valid queries of each row block of the mass in each column block,
            `[B, H, rows, columns]`; block r covers queries r·Tq//rows .. (r+1)·Tq//rows (likewise keys).
        pooled_max: (rows, columns): the largest weight of a valid query in each block, likewise.
        screen: sample the queries instead of taking all (see Screen): `received` is then exact for the keys of
            `Result.received_exact` and an estimate for the others, row statistics are of the sampled queries alone
            (NaN elsewhere), `mass_at`, `top_keys` and `mass_by_distance` are exact (near distances cost little, far
            ones as much as without a screen), and other statistics cannot be asked for.

    Row statistics of a query that is not valid, or that sees no key, are NaN (missing, never 0), and so are
    `mass_at` where every index is -1, `top_keys` weights of absent keys (their key is -1), and `pooled_map` rows
    without a valid query. A valid query that sees no key adds nothing to any sum or mean. A `mass_at` index at an
    invisible key counts 0.
    """

    output: bool = True
    lse: bool = False
    entropy: bool = False
    max_prob: bool = False
    mean_distance: bool = False
    received: bool = False
    received_max: bool = False
    value_norm: bool = False
    mass_at: Mapping[str, Tensor] = field(default_factory=dict)
    mass_in: Mapping[str, Tensor] = field(default_factory=dict)
    top_keys: Mapping[str, TopKeys] = field(default_factory=dict)
    mass_by_distance: tuple[int, ...] | None = None
    pooled_map: tuple[int, int] | None = None
    pooled_max: tuple[int, int] | None = None
    screen: Screen | None = None

    def __or__(self, other: Want) -> Want:
        """Return the union of two wants, so that N collectors cost one set of launches.

        Raises:
            ContractError: both name a different `mass_by_distance`, map or screen, or the same key twice.
        """
        merged: dict[str, object] = {}
        for spec in fields(Want):
            mine, theirs = getattr(self, spec.name), getattr(other, spec.name)
            if isinstance(mine, bool):
                merged[spec.name] = mine or theirs
            elif isinstance(mine, Mapping):
                shared = [name for name in mine if name in theirs and mine[name] is not theirs[name]]
                if shared:
                    raise ContractError(f"want {spec.name}", found=f"{shared} asked twice", expected="distinct names")
                merged[spec.name] = {**mine, **theirs}
            else:
                if mine is not None and theirs is not None and mine != theirs:
                    raise ContractError(f"want {spec.name}", found=f"{mine} and {theirs}", expected="one value")
                merged[spec.name] = mine if mine is not None else theirs
        return Want(**merged)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Result:
    """What a Want asked for; fields that were not asked for are None or empty.

    Statistics are float32 (float64 where q is float64); `output` has q's dtype.

    Attributes:
        implementation: what ran.
        kernels: the kernels that it chose, in order.
        received_exact: with a screen: `[B, Tk]` bool, the keys whose `received` is exact, in every head.
        received_bound: with a screen: `[B, H, Tk]`, `received` is not above this (probability `1 - delta` each).
    """

    implementation: str
    kernels: tuple[str, ...] = ()
    output: Tensor | None = None
    lse: Tensor | None = None
    entropy: Tensor | None = None
    max_prob: Tensor | None = None
    mean_distance: Tensor | None = None
    received: Tensor | None = None
    received_max: Tensor | None = None
    value_norm: Tensor | None = None
    mass_at: Mapping[str, Tensor] = field(default_factory=dict)
    mass_in: Mapping[str, Tensor] = field(default_factory=dict)
    top_keys: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mass_by_distance: Tensor | None = None
    pooled_map: Tensor | None = None
    pooled_max: Tensor | None = None
    received_exact: Tensor | None = None
    received_bound: Tensor | None = None
