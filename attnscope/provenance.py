"""How a report was made: versions, prompts, seeds, kernels."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import __version__
from .core.report import PromptSet, Provenance
from .engine.batches import fingerprint

if TYPE_CHECKING:
    from .models._base import Scope

LIBRARIES = ("torch", "transformers", "numpy", "xarray", "datasets", "triton")


def provenance(
    scope: Scope,
    seed: int,
    prompt_sets: Mapping[str, tuple[Any, Any]],
    implementations: Iterable[str],
    command: str | None,
    notes: tuple[str, ...] = (),
) -> Provenance:
    """Record how a report was made.

    Args:
        scope: the model.
        seed: of everything random.
        prompt_sets: name → (task, prompts); the task is None where the prompts were given.
        implementations: kernel implementations that ran.
        command: the command line, or None.
        notes: what a reader has to know.
    """
    sets = []
    for name, (task, prompts) in prompt_sets.items():
        lengths = [len(ids) for ids in prompts["input_ids"]]
        sets.append(
            PromptSet(
                name=name,
                n_prompts=len(lengths),
                n_tokens=sum(lengths),
                max_length=max(lengths),
                fingerprint=fingerprint(prompts),
                parameters={"task": "given"} if task is None else {"task": task.name, **_plain(asdict(task))},
            )
        )
    bos = scope.info.bos_token_id
    return Provenance(
        attnscope_version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        seed=seed,
        implementation=", ".join(sorted(set(implementations))),
        libraries={"python": platform.python_version(), **_versions()},
        prompt_sets=tuple(sets),
        read_sites={"block_input": "before each block", "block_output": "after each block, before the final norm"},
        bos_policy=f"every prompt begins with token {bos}"
        if bos is not None
        else "the model has no BOS; none is added",
        notes=notes,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: ", ".join(map(str, v)) if isinstance(v, tuple | list) else v for name, v in parameters.items()}
