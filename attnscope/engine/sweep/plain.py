"""One whole forward for each variant: what the faster ways must equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ...core.errors import TaskError
from ..memory import explained
from .units import SITE, Variant

if TYPE_CHECKING:
    from ...models._base import Site
    from .alternatives import Values
    from .chunks import Chunk


def plain_logits(
    scope: Any,
    chunk: Chunk,
    variant: Variant,
    values: Values,
    last: int,
    positions: Tensor | None,
    implementation: str = "auto",
    freeze_heads: bool = False,
) -> Tensor:
    """Return logits `[B, last, vocabulary]` of one forward of whole prompts with one variant edited.

    Raises:
        TaskError: frozen heads, which need a second run.
        DeviceError: the device ran out of memory.
    """
    if freeze_heads:
        raise TaskError("method 'plain'", found="frozen heads", expected="method 'stacked'")
    heads: dict[int, list[int]] = {}
    sites: dict[tuple[int, Site], list[int]] = {}
    for unit in variant:
        if unit.module == "head":
            heads.setdefault(unit.layer, []).append(unit.index)
        else:
            sites.setdefault((unit.layer, SITE[unit.module]), []).append(unit.index)

    def blend(own: Tensor, other: Tensor) -> Tensor:
        return other if positions is None else torch.where(positions[:, None], other, own)

    def tap(call: AttentionCall) -> Tensor:
        z = attend(call, None, implementation).output
        assert z is not None
        chosen = heads.get(call.layer)
        if not chosen:
            return z
        other = values.heads(call.layer, lambda: call, z[None]).to(z.dtype).expand(1, *z.shape)[0]
        z = z.clone()
        z[:, chosen] = blend(z[:, chosen], other[:, chosen])
        return z

    def stream(layer: int, site: Site, x: Tensor) -> Tensor:
        if (layer, site) not in sites:
            return x
        other = values.stream(layer, site, x[None]).to(x.dtype).expand(1, *x.shape)[0]
        if site != "neurons":
            return blend(x, other)
        x, columns = x.clone(), sites[layer, site]
        x[..., columns] = blend(x[..., columns], other[..., columns])
        return x

    wanted = sorted({site for _, site in sites})
    batch = chunk.batch()
    with explained(scope, batch), torch.no_grad(), scope.attach(tap, stream if wanted else None, wanted):
        logits: Tensor = scope.logits(batch)
    return logits[:, -last:]
