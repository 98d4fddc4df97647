"""Which recall and reasoning heads can be planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.core.errors import ModelError

from .vocabulary import N_RELATIONS

if TYPE_CHECKING:
    from .spec import PlantedSpec

LEAST_WIDTH, LEAST_VOCABULARY = 288, 128


def check_circuits(spec: PlantedSpec) -> None:
    """Raise ModelError where the recall and reasoning heads of a specification cannot work."""
    for what, found, least in (
        ("hidden size", spec.hidden_size, LEAST_WIDTH),
        ("vocabulary", spec.vocab_size, LEAST_VOCABULARY),
    ):
        if found < least:
            expected = f"at least {least} with recall or reasoning heads"
            raise ModelError(f"planted {what}", found=found, expected=expected)
    if len(spec.of_kind("recall")) > N_RELATIONS:
        expected = f"at most {N_RELATIONS}, a relation each"
        raise ModelError("planted recall heads", found=len(spec.of_kind("recall")), expected=expected)
    first, second = spec.of_kind("lookup"), spec.of_kind("second_lookup")
    if len(first) > 1 or len(second) > 1 or len(first) != len(second):
        raise ModelError(
            "planted look-ups",
            found=f"{len(first)} lookup and {len(second)} second_lookup heads",
            expected="one of each, or none",
        )
    if first and first[0].layer >= second[0].layer:
        raise ModelError(
            f"second_lookup head {second[0]}",
            found=f"the lookup head at {first[0]}",
            expected="a lookup head in an earlier layer, whose result it looks up",
        )
