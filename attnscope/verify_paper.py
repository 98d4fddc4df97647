"""The job of `attnscope verify-paper`: measure a model as a paper did, and set it beside the published numbers."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .core.errors import OutputError, UnknownNameError
from .core.published import CLAIMS, VERIFICATION_FORMAT, Published, Verification, names_of, read_published, rows_for
from .core.track import Track, silent
from .models._loading import load
from .reports.comparison import compare
from .verify_measures import VerifyPlan, residual_dimensions, secondary_sinks, sink_rates

if TYPE_CHECKING:
    from .core.model_info import ModelInfo
    from .models._base import Scope

MEASURES: Final = {"secondary-sinks": secondary_sinks, "sink-rate": sink_rates, "residual-sinks": residual_dimensions}
PASSES: Final = {"secondary-sinks": 4, "sink-rate": 3, "residual-sinks": 18}
"""Passes over the prompts, at most."""


def verify_paper(
    claim: str,
    scope: Scope | None = None,
    plan: VerifyPlan | None = None,
    *,
    published: Sequence[Published] | None = None,
    track: Track | None = None,
    command: str | None = None,
) -> Verification:
    """Measure what a paper claims of a model, and compare it with what was published for it.

    Args:
        claim: one of `core.published.CLAIMS`.
        scope: a loaded causal model; None loads the embedded one.
        plan: text, prompts and kernels.
        published: numbers to compare with; None takes those that attnscope ships.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Returns:
        Verification: where nothing is published for the model, its measured values alone.

    Raises:
        UnknownNameError: no such claim.
        UnsupportedModelError: the model is not causal.
        TaskError: the text is missing, empty, too short or too long.
        DeviceError: the device ran out of memory.

    Example:
        >>> verify_paper("sink-rate").rows[0].verdict  # doctest: +SKIP
        'nothing published'
    """
    check_claim(claim)
    every = read_published() if published is None else published
    scope = scope or load()
    rows = rows_for(every, claim, scope.info.model_id)
    found = MEASURES[claim](scope, plan or VerifyPlan(), track or silent)
    notes = list(found.notes)
    if not rows:
        notes.append(f"Published for {claim}: {', '.join(names_of(every, claim)) or 'nothing'}.")
    return Verification(
        claim=claim,  # type: ignore[arg-type]
        source=CLAIMS[claim],
        model=scope.info,
        published=bool(rows),
        protocol=dict(found.protocol),
        rows=compare(rows, found.values),
        notes=tuple(notes),
        provenance=found.provenance.model_copy(update={"command": command}),
    )


def check_claim(claim: str) -> str:
    """Return the claim if it can be verified.

    Raises:
        UnknownNameError: it cannot; the message lists those that can.

    Example:
        >>> check_claim("sink-rate")
        'sink-rate'
    """
    if claim not in CLAIMS:
        listed = ", ".join(f"{name} ({source})" for name, source in CLAIMS.items())
        raise UnknownNameError(f"claim {claim!r}", expected=f"one of {listed}")
    return claim


def cost(claim: str, plan: VerifyPlan, info: ModelInfo) -> tuple[int, float]:
    """Return how many tokens a claim runs through the model at most, and about how many multiply-adds that is.

    Example:
        >>> from attnscope import load
        >>> cost("sink-rate", VerifyPlan(), load(device="cpu").info)[0]
        19200
    """
    n, length = plan.size(claim, info.context_length)
    tokens = PASSES[claim] * n * length
    attention = tokens * length * info.head_dim * info.n_heads * len(info.attention_layers)
    return tokens, float(tokens * (info.n_parameters or 0) + attention)


def check_comparison(path: str | Path) -> Path:
    """Return the path if a comparison can be written there: a new file, or an earlier comparison.

    Raises:
        OutputError: it is a folder or another file, or cannot be written.
    """
    file = Path(path)
    if file.is_dir():
        raise OutputError(f"output {file}", found="a folder", expected="a file")
    if file.exists():
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = None
        if not isinstance(held, dict) or held.get("format") != VERIFICATION_FORMAT:
            raise OutputError(
                f"output {file}",
                found="a file that attnscope did not write",
                expected="a new file or an earlier comparison",
                fix="Choose another --out; nothing was changed.",
            )
    nearest = next(parent for parent in file.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(prefix=".attnscope-", dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"output {file}", found=f"{nearest}: {error.strerror}", expected="a writable place"
        ) from error
    return file


def write_comparison(path: str | Path, verification: Verification) -> Path:
    """Write a comparison beside its place, then rename it there.

    Raises:
        OutputError: see `check_comparison`; or the disk refused.
    """
    file = check_comparison(path)
    fresh = file.parent / f".{file.name}.{uuid.uuid4().hex[:8]}.new"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(verification.to_json(), encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise OutputError(f"output {file}", found=str(error), expected="a writable place") from error
    finally:
        fresh.unlink(missing_ok=True)
    return file
