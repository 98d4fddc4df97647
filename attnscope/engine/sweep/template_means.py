"""Mean ablation by template: what a head gives on average at this position of prompts of the same wording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ...core.errors import TaskError
from ...core.ids import HeadId
from ..batches import PromptSet, check_prompts, make_batch
from ..forward import forward
from .units import Unit

if TYPE_CHECKING:
    from ...models._base import Scope, Site
    from .chunks import Chunk

Kept = Mapping[HeadId, tuple[str, int]]
"""Head → the column that names the one position where it keeps its own output, and tokens after that."""


@dataclass(frozen=True, eq=False)
class TemplateMeans:
    """A sweep's alternative: means by template and position; heads may keep their own output at one position.

    With all heads as one variant, `kept` is a circuit of (head, position) pairs and everything else is ablated, which
    is how 2211.00593 measures F(C).

    Attributes:
        values: template → layer → `[H, T, Dv]`.
        kept: see `Kept`.

    Raises:
        TaskError: while binding: a prompt without a known template, of another length, or a unit that is no head.
    """

    name: ClassVar[str] = "mean over templates"
    values: Mapping[int, Mapping[int, Tensor]] = field(repr=False)
    kept: Kept = field(default_factory=dict, repr=False)

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> _Bound:
        """Return the means for the prompts of a chunk."""
        tokens = chunk.ids.shape[1]
        if any(unit.module != "head" for unit in units):
            raise TaskError("mean over templates", found="units other than heads", expected="heads")
        for prompt, row in zip(chunk.prompts, chunk.rows, strict=True):
            known = self.values.get(row.get("template", -1))
            if known is None or next(iter(known.values())).shape[1] != tokens:
                raise TaskError(
                    f"mean over templates for prompt {prompt}",
                    found=f"template {row.get('template')} and {tokens} tokens",
                    expected=f"one of templates {', '.join(map(str, sorted(self.values)))}, as long as its reference",
                    fix="Take the reference from the same task: its templates and words.",
                )
        means, own = {}, {}
        for layer in scope.info.attention_layers:
            means[layer] = torch.stack([self.values[row["template"]][layer] for row in chunk.rows])[:, :, start:]
            mask = torch.zeros(chunk.size, scope.info.n_heads, tokens, dtype=torch.bool)
            for head, (column, after) in self.kept.items():
                if head.layer == layer:
                    for b, row in enumerate(chunk.rows):
                        mask[b, head.head, int(row[column]) + after] = True
            own[layer] = mask[:, :, start:, None].to(chunk.ids.device)
        return _Bound(means, own)


@dataclass(frozen=True, eq=False)
class _Bound:
    means: dict[int, Tensor]
    own: dict[int, Tensor]

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        return torch.where(self.own[layer], z, self.means[layer].to(z))

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        raise TaskError("mean over templates", found=f"a unit at {site}", expected="units of the level 'head'")


@torch.no_grad()
def template_means(
    scope: Scope,
    reference: PromptSet,
    kept: Kept | None = None,
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> TemplateMeans:
    """Average every head's output over reference prompts of each template, position by position (2211.00593).

    Args:
        scope: a loaded model.
        reference: with `input_ids` and `template`, as `IOI.reference` gives.
        kept: see `Kept`.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.

    Raises:
        TaskError: no column `template`, empty or too long prompts, or prompts of one template of different lengths.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> reference = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7], [0, 6, 8]], "template": [3, 3]})
        >>> template_means(attnscope.load(device="cpu"), reference).values[3][0].shape
        torch.Size([8, 3, 64])
    """
    lengths = check_prompts(reference, scope.info.context_length)
    if "template" not in reference.column_names:
        raise TaskError("reference prompts", found=f"columns {reference.column_names}", expected="also template")
    groups: dict[int, list[int]] = defaultdict(list)
    for index, template in enumerate(reference["template"]):
        groups[template].append(index)
    values: dict[int, dict[int, Tensor]] = {}
    for template, rows in groups.items():
        if len({lengths[row] for row in rows}) > 1:
            raise TaskError(
                f"reference prompts of template {template}",
                found=f"{sorted({lengths[row] for row in rows})} tokens",
                expected="equally many",
            )
        sums: dict[int, Tensor] = {}

        def listen(call: AttentionCall, result: Any, sums: dict[int, Tensor] = sums) -> None:
            total = result.output.double().sum(0)
            sums[call.layer] = sums[call.layer] + total if call.layer in sums else total

        size = max(1, batch_tokens // lengths[rows[0]])
        for start in range(0, len(rows), size):
            batch = make_batch(reference, rows[start : start + size], scope.device)
            with forward(scope, batch, implementation=implementation, listen=listen):
                scope.run(batch)
        values[template] = {layer: (total / len(rows)).float() for layer, total in sums.items()}
    return TemplateMeans(values, kept or {})
