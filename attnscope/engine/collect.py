"""One streaming pass: every collector over every prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, cast

import xarray as xr
from torch import Tensor

from attnscope_kernels import AttentionCall, Result, Screen, Want

from ..collectors import collectors as registry
from ..collectors._base import AttentionSeen, Collector, ResidualSeen, State
from ..core.batch import Batch
from ..core.errors import StatisticsError
from .batches import PromptSet, check_prompts, fingerprint, make_batch, plan
from .checkpoint import Checkpoint
from .folds import Folds
from .forward import forward

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope, Site

NEAR = 64
"""Distances that a screen still bins, tokens: what a sparse decoder's recent window holds."""
Progress = Callable[[int, int], None]
"""Takes (tokens done, tokens in all)."""


def collect(
    scope: Scope,
    prompts: PromptSet,
    collectors: Sequence[str | Collector],
    *,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    screen: Screen | None = None,
    batch_tokens: int = 8192,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> xr.Dataset:
    """Run prompts through a model once and return every collector's statistics; no T×T matrix is formed.

    Args:
        scope: a loaded model.
        prompts: a `datasets.Dataset` with a column `input_ids`, BOS included where the model wants one.
        collectors: names, or instances where parameters other than the defaults are wanted.
        edits: interventions; collectors see the edited attention.
        implementation: kernel implementation, see `attnscope_kernels.attend`.
        screen: sample the queries (see `attnscope_kernels.Screen`): row statistics are then means over a sample, and
            received mass is exact for every key above the screen's threshold and an estimate below it, and distances
            are binned up to NEAR.
        batch_tokens: padded tokens a batch at most (one prompt at the least).
        progress: called after every batch.
        checkpoint: file that keeps what was done; the same call with the same file goes on from there (and is done at
            once where all was done), also with another `batch_tokens`. The file stays; it is yours to delete.

    Returns:
        xarray.Dataset: all collectors' variables; attrs name the kernel implementation and the prompts' fingerprint.

    Raises:
        TaskError: empty or too long prompts, or prompts without the columns that a collector needs.
        StatisticsError: two collectors give the same variable, there is no collector, or one needs far distances
            under a screen.
        ContractError: a collector needs what a screen does not give (masses in groups, maps).
        UnknownNameError: no collector has such a name.
        DeviceError: the device ran out of memory; the message says where, and about what would fit.

    Example:
        >>> import attnscope, datasets
        >>> scope = attnscope.load(backend="toy")
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 5, 7]]})
        >>> stats = collect(scope, prompts, ["entropy", "first_token_mass"])
        >>> dict(stats.entropy.sizes)["prompt"]
        1
    """
    chosen = _resolve(collectors)
    lengths = check_prompts(prompts, scope.info.context_length)
    states = {c.name: c.init(scope.info, len(prompts)) for c in chosen}
    print_ = fingerprint(prompts)
    kept = Checkpoint(checkpoint, f"{scope.info.model_dump_json()}{print_}{chosen}{edits}{screen or ''}")
    done, implementations = kept.restore(states)
    total = sum(lengths)
    rest = [prompt for prompt in range(len(prompts)) if prompt not in done]
    groups = [[rest[i] for i in group] for group in plan([lengths[i] for i in rest], batch_tokens)]
    if progress is not None and done:
        progress(sum(lengths[i] for i in done), total)
    for group in groups:
        batch = make_batch(prompts, group, scope.device)
        implementations |= run_batch(
            scope, batch, chosen, states, edits=edits, implementation=implementation, screen=screen
        )
        done.update(group)
        kept.save(states, done, implementations, last=len(done) == len(prompts))
        if progress is not None:
            progress(sum(lengths[i] for i in done), total)
    merged = xr.merge([c.finalize(states[c.name], scope.info) for c in chosen], combine_attrs="no_conflicts")
    merged.attrs |= {
        "implementation": ", ".join(sorted(implementations)) or "none",
        "prompts": len(prompts),
        "tokens": total,
        "fingerprint": print_,
    }
    return merged


def run_batch(
    scope: Scope,
    batch: Batch,
    collectors: Sequence[Collector],
    states: dict[str, State],
    *,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    screen: Screen | None = None,
) -> set[str]:
    """Fold one batch into the states and return the kernel implementations that ran, with the kernels they chose."""
    if screen is not None:
        batch = replace(batch, farthest=NEAR)
    folds = Folds(collectors, states)
    want = reduce(or_, (c.want(batch, scope.info) for c in folds.attention), Want(screen=screen))
    ran: set[str] = set()

    def listen(call: AttentionCall, result: Result) -> None:
        ran.add(result.implementation + (f" ({', '.join(result.kernels)})" if result.kernels else ""))
        if folds.attention:
            projection = partial(scope.output_projection, call.layer)
            folds.add(AttentionSeen(scope.info, batch, scope.info.rows[call.layer], call, result, projection))

    def residual(layer: int, site: Site, stream: Tensor) -> None:
        folds.add(ResidualSeen(scope.info, batch, layer, site, stream))

    sites = tuple(dict.fromkeys(cast("Site", site) for c in folds.residual for site in c.sites))
    with forward(
        scope,
        batch,
        edits,
        want=want,
        implementation=implementation,
        listen=listen,
        residual=residual,
        sites=sites,
    ):
        scope.run(batch)
        folds.finish()
    return ran


def _resolve(collectors: Sequence[str | Collector]) -> list[Collector]:
    chosen = [registry.get(c)() if isinstance(c, str) else c for c in collectors]
    if not chosen:
        raise StatisticsError("collect", found="no collectors", expected=f"some of {', '.join(registry.names())}")
    given: dict[str, str] = {}
    for c in chosen:
        for variable in c.variables:
            if variable.name in given:
                raise StatisticsError(
                    f"variable {variable.name}",
                    found=f"{given[variable.name]} and {c.name} both give it",
                    expected="one",
                )
            given[variable.name] = c.name
    return chosen
