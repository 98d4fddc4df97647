"""QRHead: which heads attend from a question to its passage, beyond what any question would make them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import xarray as xr

from ..core.errors import TaskError
from .batches import PromptSet
from .collect import collect

if TYPE_CHECKING:
    from ..models._base import Scope


def qr_scores(
    scope: Scope,
    prompts: PromptSet,
    null: PromptSet,
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return the attention on the gold passage from the question, minus that from a question that asks for nothing.

    Args:
        scope: a loaded model.
        prompts: of `tasks.passages`, with their questions.
        null: the same prompts with the null question.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.

    Returns:
        xarray.Dataset: `qr_score` (prompt, layer, head), -1..1.

    Raises:
        TaskError: the two sets differ in number.
        DeviceError: the device ran out of memory.
    """
    if len(prompts) != len(null):
        raise TaskError("null questions", found=f"{len(null)} prompts", expected=len(prompts))
    both = []
    sizes = [sum(map(len, each["input_ids"])) for each in (prompts, null)]
    for before, each in zip((0, sizes[0]), (prompts, null), strict=True):
        shown = None if progress is None else (lambda done, _, before=before: progress(before + done, sum(sizes)))
        both.append(
            collect(
                scope,
                each,
                ["passage_mass"],
                implementation=implementation,
                batch_tokens=batch_tokens,
                progress=shown,
            )
        )
    score = (both[0].passage_mass - both[1].passage_mass).assign_attrs(
        units="1", long_name="attention on the gold passage, minus the null question's", source="2506.09944"
    )
    return score.to_dataset(name="qr_score").assign_attrs(both[0].attrs)
