"""Random planted models: every kind at a random place where it can work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attnscope.core.errors import ModelError
from attnscope.core.ids import HeadId

from .labels import supporting_head
from .spec import CIRCUIT_KINDS, KINDS, PlantedSink, PlantedSpec

SHAPES = ((4, 2), (4, 4), (6, 2), (6, 3), (8, 2), (8, 4))  # query heads, KV heads


def random_spec(seed: int, **changes: Any) -> PlantedSpec:
    """Return a specification with every kind at least once, at random legal places, and no planted sinks.

    Args:
        seed: decides the places and the model's weights.
        changes: fields of `PlantedSpec` to set, for example `n_layers=6` or `head_dim=128`.

    Raises:
        ModelError: no legal place was found for every kind (the shape is too small), or a field is illegal.

    Example:
        >>> spec = random_spec(3)
        >>> sorted(set(spec.heads.values())) == sorted(set(KINDS) - {"unclassified"})
        True
        >>> spec == random_spec(3)
        True
    """
    rng = np.random.default_rng([seed, 21])
    n_heads, n_kv_heads = SHAPES[rng.integers(len(SHAPES))]
    shape = {"n_layers": 4, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": int(rng.choice([64, 128]))}
    base = PlantedSpec(**{**shape, "seed": seed, "far_distance": int(rng.integers(24, 48)), **changes})
    kinds = [kind for kind in KINDS if kind != "unclassified"]
    return _place(base, kinds, kinds, rng)


def random_circuits(seed: int, **changes: Any) -> PlantedSpec:
    """Return a specification with recall and reasoning circuits and background heads, at random legal places.

    One or two recall heads, one head for each look-up, their previous-token head, and up to a quarter of all heads of
    random other kinds.

    Args:
        seed: decides the places and the model's weights.
        changes: fields of `PlantedSpec` to set.

    Raises:
        ModelError: no legal place was found for every kind (the shape is too small), or a field is illegal.

    Example:
        >>> spec = random_circuits(3)
        >>> len(spec.of_kind("lookup")), len(spec.of_kind("second_lookup")), spec.hidden_size
        (1, 1, 288)
    """
    rng = np.random.default_rng([seed, 23])
    n_heads, n_kv_heads = SHAPES[rng.integers(len(SHAPES))]
    shape = {"n_layers": 5, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": int(rng.choice([64, 128]))}
    shape |= {"hidden_size": 288, "far_distance": int(rng.integers(24, 48))}
    base = PlantedSpec(**{**shape, "seed": seed, **changes})
    kinds = ["previous_token", *CIRCUIT_KINDS, *["recall"] * int(rng.integers(2))]
    return _place(base, kinds, [kind for kind in KINDS if kind != "unclassified"], rng)


def _place(base: PlantedSpec, kinds: list[str], others: list[str], rng: np.random.Generator) -> PlantedSpec:
    """Return the specification with a head of each of `kinds` and up to a quarter more of `others`."""
    places = base.all_heads()
    if len(places) < len(kinds):
        raise ModelError("random planted model", found=f"{len(places)} heads", expected=f"at least {len(kinds)}")
    for _ in range(500):
        order = rng.permutation(len(places))
        more = rng.choice(others, rng.integers(len(places) // 4 + 1)).tolist()
        heads = {places[place]: kind for place, kind in zip(order, [*kinds, *more])}
        try:
            return replace(base, heads=heads)
        except ModelError:
            continue
    raise ModelError("random planted model", found=f"no legal places in {base.n_layers} layers", fix="Add layers.")


def with_sinks(spec: PlantedSpec, seed: int = 0, norm: float = 400.0) -> PlantedSpec:
    """Return the specification with massive tokens: BOS from the first block on, and one word of half the norm.

    The word's block and lifetime are random, but never such that the previous-token head which others need reads it
    while it is massive.

    Raises:
        ModelError: the norm is too small or too large.

    Example:
        >>> [sink.token == "bos" for sink in with_sinks(random_spec(0)).sinks]
        [True, False]
    """
    rng = np.random.default_rng([seed, 22])
    writer = supporting_head(spec) or HeadId(0, 0)
    layer = int(rng.integers(writer.layer, spec.n_layers))
    lifetime = int(rng.integers(1, spec.n_layers - layer + 1))
    token = int(rng.choice(spec.vocabulary.words))
    return replace(spec, sinks=(PlantedSink("bos", 0, None, norm), PlantedSink(token, layer, lifetime, norm / 2)))
