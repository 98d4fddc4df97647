"""One pass over a reference prompt set: what mean ablation and static attention put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.batch import Batch
from ..core.errors import TaskError
from ..core.ids import HeadId
from ..edits._base import Edit
from ..edits._recording import Recording
from ..edits.ablate_head import AblateHead
from ..edits.static_attention import StaticAttention
from ._distances import Distances
from ._keep import Keep
from ._means import Means
from ._record_store import LIMIT
from .batches import PromptSet, check_prompts, fingerprint, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope, Site


@dataclass(frozen=True, eq=False)
class Reference:
    """Means over a reference prompt set.

    Attributes:
        heads: layer → `[H, Dv]` float32 mean z of a token.
        sites: site → layer → `[M]` (or `[N]` neurons) float32 mean over tokens.
        weights: layer → `[H, bins]` float64 weight of a key by its distance; see `analyses.distance_weights`.
        sinks: layer → `[H]` float64 weight of no key.
        edges: of the bins, tokens.
        by_position: `z` and sites → means of all prompts' tokens at one position, as a recording of one prompt.
        tokens: how many were averaged.
        fingerprint: of the prompts.
    """

    heads: Mapping[int, Tensor]
    sites: Mapping[Site, Mapping[int, Tensor]]
    weights: Mapping[int, Tensor]
    sinks: Mapping[int, Tensor]
    edges: tuple[int, ...]
    by_position: Mapping[str, Recording]
    tokens: int
    fingerprint: str

    def mean_ablation(self, heads: Sequence[HeadId]) -> AblateHead:
        """Return the mean ablation of some heads.

        Raises:
            UnknownHeadError: no head, or one whose layer was not measured.
        """
        return AblateHead(tuple(heads), self.heads)

    def static_attention(self, heads: Sequence[HeadId]) -> StaticAttention:
        """Return the edit that gives some heads their mean positional pattern.

        Raises:
            UnknownHeadError: no head, or one whose pattern was not measured.
        """
        layers = {head.layer for head in heads}
        weights = {layer: self.weights[layer] for layer in layers if layer in self.weights}
        sinks = {layer: self.sinks[layer] for layer in weights}
        return StaticAttention(tuple(heads), weights, self.edges, sinks)


def measure_reference(
    scope: Scope,
    prompts: PromptSet,
    *,
    sites: Sequence[Site] = (),
    patterns: bool = True,
    by_position: bool = False,
    skip: int = 0,
    edits: Sequence[Edit] = (),
    limit: int = LIMIT,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Run reference prompts once and average what edits need.

    Patterns are measured on the queries of each prompt's second half, which see most distances; what the reference set
    does not reach, static attention refuses.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`; as long as the prompts that static attention is for.
        sites: of the residual stream, to average too.
        patterns: whether patterns by distance are measured.
        by_position: whether means by position are kept beside those over all tokens.
        skip: first tokens of each prompt that means over tokens leave out (a sink's residual dwarfs the others).
        edits: that act in this run.
        limit: bytes that means by position may take.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes prompts done and prompts in all.

    Raises:
        TaskError: empty or too long prompts, none with more than `skip` tokens, or too long for patterns.
        UnsupportedModelError: the model lacks a site, or patterns are wanted of attention that is not causal.
        DeviceError: means by position would take more than `limit` bytes; or the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 5], [3, 4, 1, 2]]})
        >>> made = measure_reference(attnscope.load(backend="toy"), prompts)
        >>> made.tokens, made.heads[1].shape, made.static_attention([HeadId(1, 0)]).edges
        (8, torch.Size([4, 8]), (0, 1, 2, 3, 4))
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    if max(lengths) <= skip or skip < 0:
        raise TaskError("tokens of a reference set", found=f"{max(lengths)} at most, {skip} skipped", expected="some")
    means = Means(skip, max(lengths) if by_position else 0, limit)
    distances = Distances(scope.info, lengths, implementation) if patterns else None
    done = 0
    for group in plan(lengths, batch_tokens):
        batch = make_batch(prompts, group, scope.device)

        def heads(call: AttentionCall, z: Tensor, batch: Batch = batch) -> None:
            means.add("z", call.layer, z.transpose(1, 2), batch)
            if distances is not None:
                distances.add(call, batch)

        def residual(layer: int, site: Site, x: Tensor, batch: Batch = batch) -> None:
            means.add(site, layer, x, batch)

        with forward(
            scope, batch, [*edits, Keep(heads)], implementation=implementation, residual=residual, sites=sites
        ):
            scope.run(batch)
        done += len(group)
        if progress is not None:
            progress(done, len(lengths))
    weights, sinks = ({}, {}) if distances is None else distances.weights()
    return Reference(
        means.over_tokens("z", scope.device),
        {site: means.over_tokens(site, scope.device) for site in sites},
        weights,
        sinks,
        () if distances is None else distances.edges,
        means.recordings(scope.info.heads, scope.device) if by_position else {},
        sum(max(0, length - skip) for length in lengths),
        fingerprint(prompts),
    )
