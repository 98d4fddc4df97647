"""The job of `attnscope verify-circuits`: run published circuit experiments, and set them beside their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .core.errors import ModelError, UnknownNameError
from .core.paths import data_path
from .core.published import CIRCUIT_CLAIMS, Published, Verification, names_of, read_published, rows_for
from .core.track import Track, silent
from .models._loading import load, require_causal
from .reports.comparison import compare
from .verify_circuit_measures import circuit_reuse, greater_than, mib
from .verify_circuit_parts import CircuitChecks
from .verify_ioi import ioi

if TYPE_CHECKING:
    from .models._base import Scope

MEASURES: Final = {"ioi": ioi, "mib": mib, "greater-than": greater_than, "circuit-reuse": circuit_reuse}
_MEDIUM_LAYERS = 24
_RANDOM = "Random weights: the mechanics ran, and nothing is compared with what is published."


def published_circuits() -> tuple[Published, ...]:
    """Return the published numbers about circuits that attnscope ships, each with its paper and a tolerance.

    Example:
        >>> [row.value for row in published_circuits() if row.metric == "logit_difference"]
        [3.56]
    """
    return read_published(data_path("published/circuits.json"))


def verify_circuits(
    claims: Sequence[str] | None = None,
    scope: Scope | None = None,
    plan: CircuitChecks | None = None,
    *,
    published_as: str | None = None,
    published: Sequence[Published] | None = None,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[Verification, ...]:
    """Run published circuit experiments on a model, and compare them with what was published for it.

    Args:
        claims: of `core.published.CIRCUIT_CLAIMS`; None takes `claims_for` the model.
        scope: a loaded causal model with a tokenizer; None loads the embedded one.
        plan: prompts, sizes and kernels.
        published_as: compare with what is published for this model, where the folder has another name (`gpt2`).
        published: numbers to compare with; None takes those that attnscope ships.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Returns:
        One for each claim. Where nothing is published for the model, or its weights are random, its measured values
        alone.

    Raises:
        UnknownNameError: no such claim, or nothing is published for `published_as`.
        ModelError: no tokenizer, or random weights together with `published_as`.
        UnsupportedModelError: the model is not causal, or heads do not add straight to the residual stream.
        TaskError: the tokenizer leaves too few words.
        DeviceError: the device ran out of memory.

    Example:
        >>> verify_circuits(["ioi"])[0].rows[0].verdict  # doctest: +SKIP
        'nothing published'
    """
    for claim in claims or ():
        check_circuit_claim(claim)
    every = published_circuits() if published is None else published
    if published_as is not None and not any(rows_for(every, claim, published_as) for claim in MEASURES):
        known = sorted({name for row in every for name in row.models})
        raise UnknownNameError(f"published model {published_as!r}", expected=f"one of {', '.join(known)}")
    scope = scope or load()
    require_causal(scope, "published circuits")
    drawn = scope.info.weights == "random"
    if scope.tokenizer is None:
        raise ModelError(
            f"tokenizer of {scope.info.model_id}",
            found="none",
            expected="one, to make prompts",
            fix="Name one with --tokenizer, as a folder or a hub id.",
        )
    if drawn and published_as is not None:
        raise ModelError(f"model {scope.info.model_id}", found="random weights", expected=f"those of {published_as}")
    done = []
    for claim in claims or claims_for(scope):
        rows = () if drawn else rows_for(every, claim, published_as or scope.info.model_id)
        found = MEASURES[claim](scope, plan or CircuitChecks(), track or silent)
        notes = list(found.notes)
        if drawn:
            notes.append(_RANDOM)
        elif not rows:
            notes.append(f"Published for {claim}: {', '.join(names_of(every, claim)) or 'nothing'}.")
        done.append(
            Verification(
                claim=claim,  # type: ignore[arg-type]
                source=CIRCUIT_CLAIMS[claim],
                model=scope.info,
                published=bool(rows),
                protocol=dict(found.protocol),
                rows=compare(rows, found.values),
                notes=tuple(notes),
                provenance=found.provenance.model_copy(update={"command": command}),
            )
        )
    return tuple(done)


def claims_for(scope: Scope) -> tuple[str, ...]:
    """Return the claims that are checked without being asked for: circuit reuse is about models of 24 layers.

    Example:
        >>> claims_for(load(device="cpu"))
        ('ioi', 'mib', 'greater-than')
    """
    reuse = scope.info.n_layers == _MEDIUM_LAYERS
    return tuple(claim for claim in CIRCUIT_CLAIMS if claim != "circuit-reuse" or reuse)


def check_circuit_claim(claim: str) -> str:
    """Return the claim if it can be measured.

    Raises:
        UnknownNameError: it cannot; the message lists those that can.

    Example:
        >>> check_circuit_claim("mib")
        'mib'
    """
    if claim not in CIRCUIT_CLAIMS:
        listed = ", ".join(f"{name} ({source})" for name, source in CIRCUIT_CLAIMS.items())
        raise UnknownNameError(f"claim {claim!r}", expected=f"one of {listed}")
    return claim
