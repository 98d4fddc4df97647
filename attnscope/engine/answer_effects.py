"""What answers lose when each head alone is replaced by its mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..core import statistics
from ..core.errors import UnsupportedModelError
from ..core.names import Variable
from .batches import PromptSet
from .reference import measure_reference
from .sweep.alternatives import Fixed
from .sweep.run import sweep

if TYPE_CHECKING:
    from ..models._base import Scope


def effect(task: str) -> Variable:
    """Return the variable of a task's effects: `recall_effect`, `reasoning_effect`."""
    return Variable(
        f"{task}_effect",
        ("prompt", "layer", "head"),
        "1",
        f"accuracy of {task} answers that is lost when the head alone is ablated to its mean",
        "2510.03366",
    )


LOGIT_EFFECT = Variable(
    "answer_logit_effect",
    ("prompt", "layer", "head"),
    "logit",
    "lead of the answer over the wrong answer that is lost when the head alone is ablated to its mean",
    "2510.03366",
)


def answer_effects(
    scope: Scope,
    prompts: PromptSet,
    task: str,
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> xr.Dataset:
    """Ablate every head by itself, at all positions, and return what the answers lose.

    A head's output is replaced by its mean over all tokens of the same prompts. Zeros would also take away what a head
    gives on every token, a bias that later blocks rely on, and so name heads that carry nothing of the prompt.

    Args:
        scope: a loaded transformers model.
        prompts: with columns `input_ids` (without the answer) and `answer_ids`; `wrong_ids` adds the effect on logits.
        task: names the effect.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.
        progress: called with variants done and variants in all, over prompts.
        checkpoint: a file to go on from after an interruption.

    Returns:
        `<task>_effect` `[prompt, layer, head]`: 1 where the answer is lost, 0 where it stays; NaN for a prompt that the
        whole model does not answer. With `wrong_ids` also `answer_logit_effect`, of the same prompts, logit.

    Raises:
        TaskError: empty or too long prompts, or a column is missing.
        UnsupportedModelError: no transformers model.
        SweepError: one head's run failed.
        DeviceError: the device ran out of memory.
        OutputError: the checkpoint belongs to another sweep.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9]], "answer_ids": [[11]]})
        >>> answer_effects(attnscope.load(device="cpu"), prompts, "recall").recall_effect.shape
        (1, 8, 8)
    """
    if getattr(scope, "parts", None) is None:
        raise UnsupportedModelError(
            f"{task} effects of {scope.info.model_id}",
            found=f"backend {scope.info.backend!r}, whose heads cannot be swept",
            expected="a transformers model",
        )
    means = measure_reference(
        scope, prompts, patterns=False, implementation=implementation, batch_tokens=batch_tokens
    ).heads
    metrics = ["accuracy", *(["logit_difference"] if "wrong_ids" in prompts.column_names else [])]
    found = sweep(
        scope,
        prompts,
        "head",
        metrics=metrics,
        alternative=Fixed({("z", layer): z for layer, z in means.items()}),
        implementation=implementation,
        batch_tokens=batch_tokens,
        progress=progress,
        checkpoint=checkpoint,
    )
    right = (found.baseline["accuracy"] == 1)[:, None]
    shape = (len(prompts), len(scope.info.attention_layers), scope.info.n_heads)
    kinds = dict(zip(metrics, (effect(task), LOGIT_EFFECT), strict=False))
    values = [(kind, np.where(right, found.effect(name), np.nan).reshape(shape)) for name, kind in kinds.items()]
    return statistics.dataset(
        scope.info,
        values,
        attrs={"prompts": int(right.sum()), "ablation": found.alternative, "prompt_set": task},
    )
