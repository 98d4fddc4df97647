"""Whether a want fits a call; every implementation is reached through this check."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .contract import AttentionCall, Want
from .errors import ContractError


def check_want(call: AttentionCall, want: Want) -> None:
    """Check every reduction of `want` against the shapes of `call`.

    Raises:
        ContractError: naming the reduction, what was found and what was expected.
    """
    b, _, tq, _ = call.q.shape
    tk = call.k.shape[2]
    for name, index in want.mass_at.items():
        check_integers(call, f"want mass_at[{name!r}]", index)
        if index.dim() not in (2, 3) or tuple(index.shape[:2]) != (b, tq):
            _fail(f"want mass_at[{name!r}]", tuple(index.shape), f"[{b}, {tq}] or [{b}, {tq}, R]")
        check_range(f"want mass_at[{name!r}]", index, tk)
    for name, groups in want.mass_in.items():
        check_integers(call, f"want mass_in[{name!r}]", groups)
        if tuple(groups.shape) != (b, tk):
            _fail(f"want mass_in[{name!r}]", tuple(groups.shape), f"[{b}, {tk}]")
        check_range(f"want mass_in[{name!r}]", groups, None)
    for name, top in want.top_keys.items():
        check_integers(call, f"want top_keys[{name!r}].queries", top.queries)
        if top.queries.dim() != 2 or top.queries.shape[0] != b:
            _fail(f"want top_keys[{name!r}].queries", tuple(top.queries.shape), f"[{b}, N]")
        check_range(f"want top_keys[{name!r}].queries", top.queries, tq)
        if top.k < 1:
            _fail(f"want top_keys[{name!r}].k", top.k, "at least 1")
    edges = want.mass_by_distance
    if edges is not None:
        increasing = all(low < high for low, high in pairwise(edges))
        if len(edges) < 2 or edges[0] < 0 or not increasing:
            _fail("want mass_by_distance", edges, "two or more increasing edges, from 0 upwards")
    for name in ("pooled_map", "pooled_max"):
        blocks = getattr(want, name)
        if blocks is not None and not (1 <= blocks[0] <= tq and 1 <= blocks[1] <= tk):
            _fail(f"want {name}", blocks, f"rows in 1..{tq} and columns in 1..{tk}")
    if want.screen is not None:
        unscreened = ("received_max", "mass_in", "pooled_map", "pooled_max")
        asked = [name for name in unscreened if getattr(want, name)]
        if asked:
            _fail(
                "want screen",
                f"with {', '.join(asked)}",
                "received, row statistics, masses at keys and distances, top keys and the output only",
            )
    if call.logit_scale is not None and bool((call.logit_scale < 0).any()):
        _fail(f"attention call of layer {call.layer}, logit_scale", "a negative factor", "0 or more")
    if call.segments is not None and bool((call.segments.diff(dim=1) < 0).any()):
        _fail(
            f"attention call of layer {call.layer}, segments",
            "numbers that fall along the row",
            "numbers that never fall",
        )


def check_integers(call: AttentionCall, what: str, value: Tensor) -> None:
    """Check that indices are integers on the call's device.

    Raises:
        ContractError: they are not; `what` names them.
    """
    if value.dtype not in (torch.int64, torch.int32) or value.device != call.q.device:
        _fail(what, f"{value.dtype} on {value.device}", f"int64 or int32 on {call.q.device}")


def check_range(what: str, value: Tensor, length: int | None) -> None:
    """Check that indices are -1 (none) or 0..length-1; None sets no upper bound.

    Raises:
        ContractError: they are not; `what` names them.
    """
    if value.numel() == 0:
        return
    low, high = _range(value)
    if low < -1 or (length is not None and high >= length):
        _fail(what, f"indices {low}..{high}", f"-1..{length - 1}" if length is not None else "-1 or a group number")


_ranges = WeakTensorKeyDictionary()


def _range(value: Tensor) -> tuple[int, int]:
    """Return the smallest and largest entry; the device is waited for once, not in every layer."""
    known = _ranges.get(value)
    if known is None or known[0] != value._version:
        low, high = torch.stack(value.aminmax()).tolist()
        _ranges[value] = known = (value._version, int(low), int(high))
    return known[1], known[2]


def _fail(what: str, found: object, expected: object) -> None:
    raise ContractError(what, found=found, expected=expected)
