"""What measurements of published circuits share: their size, path patching, and the record of how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .analyses.faithfulness import MIB_SIZES
from .core.ids import HeadId
from .engine.sweep.paths import Receiver, Slot, patch_paths
from .provenance import provenance
from .reports.comparison import Values
from .verify_measures import Findings

if TYPE_CHECKING:
    from .engine.sweep.chunks import Positions
    from .models._base import Scope

METRIC: Final = "logit_difference"


@dataclass(frozen=True)
class CircuitChecks:
    """What is run for one claim.

    Attributes:
        prompts: pairs of each task.
        per_template: reference prompts of each IOI template, for means.
        steps: gradients of EAP-IG.
        sizes: circuit sizes of MIB's curve, shares of all edges.
        seed: of prompts and random circuits.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.
    """

    prompts: int = 100
    per_template: int = 32
    steps: int = 5
    sizes: tuple[float, ...] = MIB_SIZES
    seed: int = 0
    implementation: str = "auto"
    batch_tokens: int = 8192

    @property
    def options(self) -> dict[str, Any]:
        """Options of every pass."""
        return {"implementation": self.implementation, "batch_tokens": self.batch_tokens}


def path_changes(
    scope: Scope,
    pairs: Any,
    plan: CircuitChecks,
    receivers: Sequence[HeadId] = (),
    slot: Slot = "query",
    positions: Positions = "all",
) -> np.ndarray:
    """Return the mean change of the logit difference `[L, H]` when the paths from each head are patched."""
    found = patch_paths(
        scope, pairs, [Receiver(head, slot) for head in receivers], metric=METRIC, positions=positions, **plan.options
    )
    change = (found.values - found.baseline[:, None]).mean(0)
    return change.reshape(len(scope.info.attention_layers), scope.info.n_heads)


def findings(
    scope: Scope,
    plan: CircuitChecks,
    values: Values,
    how: dict[str, Any],
    sets: dict[str, tuple[Any, Any]],
    notes: tuple[str, ...] = (),
) -> Findings:
    """Return values with how they were measured."""
    bos = scope.tokenizer.bos_token_id
    policy = "none, as the tokenizer has none" if bos is None else f"every prompt begins with token {bos}"
    made = provenance(scope, plan.seed, sets, {plan.implementation}, None).model_copy(update={"bos_policy": policy})
    return Findings(values, {"prompts": plan.prompts, **how, "BOS": policy}, made, notes)
