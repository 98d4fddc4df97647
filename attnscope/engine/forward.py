"""What every forward of a measurement runs in: edits and listeners attached, no gradients, clear memory errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from attnscope_kernels import Want

from .edited import NOTHING, Listener, edited
from .memory import explained

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..edits._base import Edit
    from ..models._base import ResidualTap, Scope, Site


@contextmanager
def forward(
    scope: Scope,
    batch: Batch,
    edits: Sequence[Edit] = (),
    *,
    want: Want = NOTHING,
    implementation: str = "auto",
    listen: Listener | None = None,
    residual: ResidualTap | None = None,
    sites: Sequence[Site] = (),
) -> Iterator[None]:
    """Attach edits and listeners (see `edited`) for forwards of one batch, without gradients.

    Raises:
        TapError: something is attached already.
        UnsupportedModelError: the model lacks a site.
        DeviceError: the device ran out of memory; the message says where, and about what would fit.

    Example:
        >>> import attnscope, datasets
        >>> from attnscope.engine.batches import make_batch
        >>> scope = attnscope.load(backend="toy")
        >>> batch = make_batch(datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]]}), [0], scope.device)
        >>> with forward(scope, batch):
        ...     tuple(scope.logits(batch).shape[:2])
        (1, 3)
    """
    with (
        explained(scope, batch),
        torch.no_grad(),
        edited(
            scope,
            edits,
            batch,
            want=want,
            implementation=implementation,
            listen=listen,
            residual=residual,
            sites=sites,
        ),
    ):
        yield
