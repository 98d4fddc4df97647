"""One forward with edits, and whoever listens to it: the only place where edits and the model meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from attnscope_kernels import AttentionCall, Result, Want, attend

from ..core.batch import Batch
from ..models._base import ResidualTap, Site
from ._tokens import Tokens, running_tokens

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope

NOTHING = Want()
Listener = Callable[[AttentionCall, Result], None]


@contextmanager
def edited(
    scope: Scope,
    edits: Sequence[Edit] = (),
    batch: Batch | None = None,
    *,
    want: Want = NOTHING,
    implementation: str = "auto",
    listen: Listener | None = None,
    residual: ResidualTap | None = None,
    sites: Sequence[Site] = (),
) -> Iterator[None]:
    """Attach edits to a model: they change the calls and the residual stream, listeners see what they changed.

    Positions of edits count from each prompt's first token and go on counting while a key/value cache is read: an edit
    inside the prompt acts while that token runs, and one beyond it on the token that is generated there.

    Args:
        scope: a loaded model.
        edits: in the order in which they act.
        batch: the prompts that will run, for edits that differ by prompt; None for your own calls of the model.
        want: what `listen` needs of attention.
        implementation: kernel implementation.
        listen: gets every attention call after edits, and its result.
        residual: gets the residual stream at `sites`, after edits.
        sites: where.

    Raises:
        TapError: something is attached already.
        UnsupportedModelError: the model lacks a site.
        TaskError: an edit does not compose with one before it.

    Example:
        >>> import attnscope, torch
        >>> from attnscope.edits.ablate_head import AblateHead
        >>> scope = attnscope.load(device="cpu")
        >>> ids = torch.tensor([[0, 5, 7]])
        >>> with edited(scope, [AblateHead((attnscope.HeadId(1, 0),))]):
        ...     scope.model(input_ids=ids).logits.shape
        torch.Size([1, 3, 4096])
    """

    edits = [edit.bound(batch) for edit in edits]
    again = partial(attend, implementation=implementation)
    for index, edit in enumerate(edits):
        edit.check_after(edits[:index])

    def tap(call: AttentionCall) -> Tensor:
        for edit in edits:
            call = edit.call(call)
        if listen is None:
            z = _attend_unless(call, {head for edit in edits for head in edit.anew(call)}, implementation)
        else:
            result = attend(call, want, implementation)
            assert result.output is not None
            listen(call, result)
            z = result.output
        for edit in edits:
            z = edit.output(call, z, again)
        return z

    tokens: Callable[[Tensor], Tokens]

    def streams(layer: int, site: Site, x: Tensor) -> Tensor:
        for edit in edits:
            if site in edit.sites:
                x = edit.stream(layer, site, x, tokens(x))
        if residual is not None and site in sites:
            residual(layer, site, x)
        return x

    wanted = list(dict.fromkeys([*(site for edit in edits for site in edit.sites), *sites]))
    with ExitStack() as stack:
        if any(edit.sites for edit in edits):
            tokens = stack.enter_context(running_tokens(scope, batch))
        stack.enter_context(scope.attach(tap, streams if wanted else None, wanted))
        yield


def _attend_unless(call: AttentionCall, left_out: set[int], implementation: str) -> Tensor:
    """Return z `[B, H, Tq, Dv]`, 0 in the heads that an edit computes anew."""
    kept = [head for head in range(call.q.shape[1]) if head not in left_out]
    if not kept:
        return call.q.new_zeros(*call.q.shape[:3], call.v.shape[3])
    output = attend(call.select(kept) if left_out else call, NOTHING, implementation).output
    assert output is not None
    if not left_out:
        return output
    z = output.new_zeros(*call.q.shape[:3], call.v.shape[3])
    z[:, kept] = output
    return z
