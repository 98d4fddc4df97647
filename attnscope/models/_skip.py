"""Forwards that begin at a later block: the earlier ones hand on what they get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import body_of, forward_options
from ._layout import Layout
from ._probe import _harmless_ids


@torch.no_grad()
def returns_tuple(model: Any, layout: Layout) -> bool:
    """Return whether a block gives its stream inside a tuple, from one forward of a few tokens."""
    found: list[bool] = []
    body = body_of(model)
    with ExitStack() as stack:
        handle = layout.blocks[0].register_forward_hook(
            lambda _module, _args, output: found.append(not isinstance(output, Tensor))
        )
        stack.callback(handle.remove)
        body(input_ids=_harmless_ids(model, 2), **forward_options(body))
    return found[0]


@contextmanager
def skipped(blocks: Sequence[nn.Module], in_tuple: bool) -> Iterator[None]:
    """Let blocks hand on their input; their own forwards are restored on exit, also after an exception."""

    def hand_on(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if in_tuple else hidden_states

    with ExitStack() as stack:
        for block in blocks:
            own = block.__dict__.get("forward")
            block.__dict__["forward"] = hand_on
            stack.callback(_restore, block, own)
        yield


def _restore(block: nn.Module, own: Any) -> None:
    if own is None:
        del block.__dict__["forward"]
    else:
        block.__dict__["forward"] = own
