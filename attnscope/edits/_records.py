"""Edits from what a report recorded of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import TaskError
from . import edits
from ._plain import decode, digest, tensors_in
from ._recording import Recording

if TYPE_CHECKING:
    from torch import Tensor

    from ._base import Edit

TYPES: Mapping[str, type] = {"Recording": Recording}


def edit_from_record(record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Edit:
    """Rebuild an edit from `Edit.record()`.

    Args:
        record: JSON data.
        tensors: SHA-256 → tensor, for those that it names; see `tensors_of`.

    Raises:
        TaskError: the record has no name or parameters that the edit does not take, or a tensor is not there.
        UnknownNameError: no edit has this name.

    Example:
        >>> edit_from_record({"edit": "scale_head", "heads": ["L0H2"], "factor": 0.5})
        ScaleHead(heads=(L0H2,), factor=0.5, positions=None)
    """
    if not isinstance(record.get("edit"), str):
        raise TaskError("record of an edit", found=f"the keys {sorted(record)}", expected="a name under 'edit'")
    given = {key: decode(value, tensors or {}, TYPES) for key, value in record.items() if key != "edit"}
    kind = edits.get(record["edit"])
    try:
        made: Edit = kind(**given)
    except TypeError as error:
        raise TaskError(f"record of {record['edit']}", found=str(error), expected="its parameters") from error
    return made


def tensors_of(edit: Edit) -> dict[str, Tensor]:
    """Return every tensor of an edit by its SHA-256, to be saved beside a record.

    Example:
        >>> from attnscope.edits.ablate_head import AblateHead
        >>> from attnscope.core.ids import HeadId
        >>> tensors_of(AblateHead((HeadId(0, 1),)))
        {}
    """
    return {digest(tensor): tensor for tensor in tensors_in(edit)}
