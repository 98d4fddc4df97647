"""Retrieval scores as 2404.15574 measures them: while the model generates, which token does each head look at?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from attnscope_kernels import AttentionCall, Result, TopKeys, Want

from ..core import statistics
from ..core.errors import TaskError
from ..core.names import Variable
from .batches import PromptSet, check_prompts, fingerprint, make_batch
from .forward import forward
from .prefix import cache_argument, new_cache

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..edits._base import Edit
    from ..models._base import Scope

LEAST_RECALL = 0.5
"""A trial counts where the generation holds more than this share of the answer's words, strict."""
STEPS = 50

SCORE = Variable("retrieval_decoded", ("prompt", "layer", "head"), "1", "needle tokens copied, decoding", "2404.15574")
RECALL = Variable("answer_recall", ("prompt",), "1", "ROUGE-1 recall of the answer", "2404.15574")


def decoded_retrieval(
    scope: Scope,
    prompts: PromptSet,
    *,
    steps: int = STEPS,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Generate greedily and score, at every step, the heads whose largest weight is on the needle token generated.

    A step at which a head's largest weight lies on a token of the answer inside the needle, and the model generates
    that same token, adds 1 / (tokens of the answer) to the head's score; scores above 1 are repeated copies, and stay.
    The paper divides by the needle, which is there what the model is asked to repeat. Unanswered trials are kept in
    `answer_recall` and are missing in the scores.

    Args:
        scope: a loaded causal model of transformers, which is called with a KV cache.
        prompts: with `input_ids`, `answer_ids`, `source_positions` and `answer`.
        steps: tokens at most; the end-of-sequence token or a line break ends a generation.
        edits: interventions, active from the prompt on.
        implementation: kernel implementation.
        progress: takes prompts done and prompts in all.

    Returns:
        xarray.Dataset: `retrieval_decoded` (prompt, layer, head), 0 or more, NaN where the model did not answer, and
        `answer_recall` (prompt), 0..1.

    Raises:
        TaskError: empty or too long prompts, a missing column, or no tokenizer.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope
        >>> from attnscope.tasks.needle import Needle
        >>> scope = attnscope.load(device="cpu")
        >>> prompts = Needle(n=1, length=128).build(scope.tokenizer)
        >>> decoded_retrieval(scope, prompts, steps=6).answer_recall.values.tolist()
        [1.0]
    """
    check_prompts(prompts, scope.info.context_length)
    if scope.tokenizer is None:
        raise TaskError("retrieval while decoding", found="a model without a tokenizer", expected="one with")
    info, limit = scope.info, scope.info.context_length
    score = np.full((len(prompts), len(info.attention_layers), info.n_heads), np.nan)
    recall = np.full(len(prompts), np.nan)
    for i in range(len(prompts)):
        batch = make_batch(prompts, [i], scope.device)
        sources, answer = (batch.column(c, "retrieval while decoding")[0] for c in ("source_positions", "answer"))
        room = steps if limit is None else min(steps, limit - batch.input_ids.shape[1])
        copied = _Copied(scope, batch, sources)
        generated = _generate(scope, batch, copied, room, edits, implementation)
        recall[i] = rouge1_recall(answer, scope.tokenizer.decode(generated))
        if recall[i] > LEAST_RECALL:
            score[i] = copied.counts / len(sources)
        if progress is not None:
            progress(i + 1, len(prompts))
    return statistics.dataset(
        info, [(SCORE, score), (RECALL, recall)], attrs={"fingerprint": fingerprint(prompts), "steps": steps}
    )


class _Copied:
    """Counts, for every head, the steps at which it looked at the needle token that was generated."""

    def __init__(self, scope: Scope, batch: Batch, sources: Sequence[int]) -> None:
        self.scope, self.ids = scope, batch.input_ids[0].tolist()
        self.sources = set(sources)
        self.counts = np.zeros((len(scope.info.attention_layers), scope.info.n_heads))
        self.looked: dict[int, np.ndarray] = {}
        self.want = Want(top_keys={"copied": TopKeys(torch.zeros(1, 1, dtype=torch.long, device=scope.device), 1)})

    def listen(self, call: AttentionCall, result: Result) -> None:
        """Note where each head of a layer looks."""
        self.looked[self.scope.info.rows[call.layer]] = result.top_keys["copied"][1][0, :, 0, 0].cpu().numpy()

    def generated(self, token: int) -> None:
        """Count the heads that looked at this token inside the needle."""
        same = [p for p in self.sources if self.ids[p] == token]
        for row, keys in self.looked.items():
            self.counts[row] += np.isin(keys, same)


def _generate(
    scope: Scope, batch: Batch, copied: _Copied, steps: int, edits: Sequence[Edit], implementation: str
) -> list[int]:
    model, ids = scope.model, batch.input_ids
    ends = _ends(scope)
    generated: list[int] = []
    cache = {cache_argument(model): new_cache(), "use_cache": True}
    if ids.shape[1] > 1:
        with forward(scope, batch, edits, implementation=implementation):
            model(input_ids=ids[:, :-1], logits_to_keep=1, **cache)
    last = ids[:, -1:]
    with forward(scope, batch, edits, want=copied.want, implementation=implementation, listen=copied.listen):
        for _ in range(steps):
            last = model(input_ids=last, **cache).logits[:, -1:].argmax(-1)
            token = int(last)
            copied.generated(token)
            generated.append(token)
            if token in ends:
                break
    return generated


def _ends(scope: Scope) -> set[int]:
    newline = scope.tokenizer.encode("\n", add_special_tokens=False)
    ends = {newline[-1]} if len(newline) == 1 else set()
    return ends | ({scope.tokenizer.eos_token_id} if scope.tokenizer.eos_token_id is not None else set())


def rouge1_recall(answer: str, text: str) -> float:
    """Return the share of the answer's words that a text holds, counted with repeats, 0..1.

    Example:
        >>> rouge1_recall("eat a sandwich", "Eat the sandwich.")
        0.6666666666666666
    """
    wanted, held = (Counter(re.findall(r"\w+", each.lower())) for each in (answer, text))
    return sum((wanted & held).values()) / max(1, sum(wanted.values()))
