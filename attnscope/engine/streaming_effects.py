"""What an answer loses when one KV head streams, and what it regains when one alone stays full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.names import Variable
from ..core.statistics import dataset
from ..edits.stream_window import StreamWindow
from .answers import Prefill, answer_scores
from .batches import PromptSet, fingerprint

if TYPE_CHECKING:
    import xarray as xr

    from ..edits._base import Edit
    from ..models._base import Scope

_PER_HEAD = ("prompt", "layer", "kv_head")
VARIABLES = (
    Variable("streaming_loss", _PER_HEAD, "nat", "log-probability of the answer lost when this KV head alone streams"),
    Variable(
        "streaming_gain",
        _PER_HEAD,
        "nat",
        "log-probability of the answer regained when this KV head alone stays full and all others stream",
    ),
    Variable("full_log_probability", ("prompt",), "nat", "log-probability of the answer, all KV heads full"),
    Variable("streaming_log_probability", ("prompt",), "nat", "log-probability of the answer, all KV heads streaming"),
)


def streaming_effects(
    scope: Scope,
    prompts: PromptSet,
    *,
    sink_tokens: int = 4,
    recent_tokens: int = 64,
    prefill: Prefill = "dense",
    implementation: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> xr.Dataset:
    """Let each KV head stream alone, and stay full alone: 2·L·G + 2 short passes a prompt after one prefill.

    Heads that can stand in for each other lose nothing one by one: `streaming_loss` is then 0 for all of them, and
    `streaming_gain` shows them.

    Args:
        scope: a loaded transformers model.
        prompts: with columns `input_ids`, `answer_ids`, `question_position`, as `tasks.needle` makes them.
        sink_tokens: first tokens that a streaming head keeps.
        recent_tokens: last tokens that it keeps.
        prefill: `dense`: heads stream from the question on; `edited`: everywhere (a whole pass each).
        progress: called with prompts done and prompts in all.
        checkpoint: a file to go on from after an interruption.

    Returns:
        Dataset with `streaming_loss` and `streaming_gain` `[prompt, layer, kv_head]`, nats, and the answer's
        log-probability with all heads full and all streaming.

    Raises:
        TaskError: empty or too long prompts, a column is missing, or a window below 1.
        UnsupportedModelError: the model takes no key/value cache.

    Example:
        >>> import attnscope
        >>> from attnscope.tasks.needle import Needle
        >>> scope = attnscope.load(device="cpu")
        >>> needle = Needle(n=1, length=96, depth=0.1).build(scope.tokenizer)
        >>> streaming_effects(scope, needle, recent_tokens=16).streaming_gain.sizes["kv_head"]
        4
    """
    info = scope.info
    grid = (len(info.attention_layers), info.n_kv_heads)
    table = np.eye(grid[0] * grid[1], dtype=bool).reshape(-1, *grid)

    def window(chosen: np.ndarray) -> list[Edit]:
        heads = info.query_heads(chosen)
        return [StreamWindow(heads, sink_tokens, recent_tokens)] if heads else []

    alone, rest = [window(one) for one in table], [window(~one) for one in table]
    treatments = [[], window(np.ones(grid, dtype=bool)), *alone, *rest]
    found = answer_scores(
        scope,
        prompts,
        lambda prompt: treatments,
        prefill=prefill,
        implementation=implementation,
        progress=progress,
        checkpoint=checkpoint,
    ).log_probability
    full, none, n = found[:, :1], found[:, 1:2], len(table)
    shape = (len(found), len(info.attention_layers), info.n_kv_heads)
    arrays = [(full - found[:, 2 : 2 + n]).reshape(shape), (found[:, 2 + n :] - none).reshape(shape)]
    return dataset(
        info,
        zip(VARIABLES, [*arrays, full[:, 0], none[:, 0]], strict=True),
        attrs={
            "prompts": len(prompts),
            "fingerprint": fingerprint(prompts),
            "sink_tokens": sink_tokens,
            "recent_tokens": recent_tokens,
            "prefill": prefill,
        },
    )
