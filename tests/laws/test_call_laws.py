"""Laws of what a call may say beyond q, k and v: selections, tiles, head outputs, packed sequences, logit scales."""

from __future__ import annotations

import math
from functools import reduce

import pytest
import torch

from attnscope_kernels import AttentionCall, HeadOutput, Want, attend, attention_tile, available
from attnscope_kernels.errors import ContractError
from attnscope_kernels.impl import reference
from attnscope_kernels.testing import FEATURES, random_call

AVAILABLE = [name for name, reason in available().items() if reason is None and name != "triton"]


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_tile_is_the_rectangle_of_the_matrix(implementation: str, feature: str) -> None:
    call = random_call(queries=60, heads=6, kv_heads=2, dtype=torch.float64, **FEATURES[feature])
    whole = weights_of_reference(call)
    tile = attention_tile(call, [1, 4], slice(20, 47), slice(11, 55), implementation)
    torch.testing.assert_close(tile, whole[:, [1, 4], 20:47, 11:55], equal_nan=True)


def weights_of_reference(call: AttentionCall) -> torch.Tensor:
    """A through the definition, NaN in rows that do not count."""
    logits, seen = reference.attention_logits(call)
    counts = call.valid_queries[:, None] & seen.any(-1)
    return reference.attention_weights(call, logits, seen)[0].masked_fill(~counts[..., None], math.nan)


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", ["plain", "all", "values"])
@pytest.mark.parametrize("heads", [[5], [2, 3], [0, 1, 2], [5, 0], [3, 4, 5, 0, 1, 2]])
def test_selected_heads_and_queries_are_those_of_the_whole(implementation: str, feature: str, heads: list[int]) -> None:
    call = random_call(queries=50, heads=6, kv_heads=2, dtype=torch.float64, **FEATURES[feature])
    want = Want(lse=True, entropy=True)
    whole, part = attend(call, want, implementation), attend(call.select(heads, slice(9, 30)), want, implementation)
    for name in ("output", "lse", "entropy"):
        expected = getattr(whole, name)[:, heads, 9:30]
        torch.testing.assert_close(getattr(part, name), expected, equal_nan=True)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_head_outputs_are_scaled_and_patched(implementation: str) -> None:
    call = random_call(queries=20, heads=3, kv_heads=1, padding="right")
    plain = attend(call, Want(), implementation).output
    patches = torch.randn(2, 1, 20, 16)
    edit = HeadOutput(torch.tensor([0.0, 1.0, 2.0])).then(HeadOutput(torch.tensor([1.0, 0.5, 1.0]), (1,), patches))
    edited = attend(call.replace(head_output=edit), Want(), implementation).output
    torch.testing.assert_close(edited[:, 0], torch.zeros_like(edited[:, 0]))
    torch.testing.assert_close(edited[:, 1], 0.5 * plain[:, 1] + patches[:, 0])
    torch.testing.assert_close(edited[:, 2], 2 * plain[:, 2])
    again = edit.then(HeadOutput(torch.tensor([1.0, 3.0, 1.0])))
    twice = attend(call.replace(head_output=again), Want(), implementation).output
    torch.testing.assert_close(twice[:, 1], 3 * edited[:, 1])


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_heads_are_patched_at_some_queries_and_edits_go_on_in_order(implementation: str) -> None:
    call = random_call(queries=20, heads=3, kv_heads=1)
    plain = attend(call, Want(), implementation).output
    here = torch.arange(20) < 7
    kept = (~here).float().expand(1, 1, 20)
    patches = torch.randn(2, 1, 20, 16).masked_fill(~here[:, None], 0)
    double, half = HeadOutput(torch.tensor([1.0, 2.0, 1.0])), HeadOutput(torch.tensor([1.0, 0.5, 1.0]))
    replaced = HeadOutput(torch.ones(3), (1,), patches, kept)
    added = HeadOutput(torch.ones(3), (1, 2), torch.ones(1, 2, 1, 16))
    stays = HeadOutput(torch.ones(3), (1,), torch.zeros(1, 1, 1, 16), 3 * kept + 1)
    for edits, inside, outside in (
        ((double, replaced), patches[:, 0], 2 * plain[:, 1]),
        ((replaced, double), 2 * patches[:, 0], 2 * plain[:, 1]),
        ((added, replaced, half), patches[:, 0] / 2, (plain[:, 1] + 1) / 2),
        ((replaced, added), patches[:, 0] + 1, plain[:, 1] + 1),
        ((replaced, stays, stays), patches[:, 0], 16 * plain[:, 1]),
    ):
        output = reduce(HeadOutput.then, edits)
        edited = attend(call.replace(head_output=output), Want(), implementation).output
        torch.testing.assert_close(edited[:, 1], torch.where(here[:, None], inside, outside))
        part = attend(call.replace(head_output=output).select([2, 1], slice(5, 11)), Want(), implementation).output
        torch.testing.assert_close(part, edited[:, [2, 1], 5:11])


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_packed_sequences_are_those_apart(implementation: str) -> None:
    call = random_call(batch=1, queries=70, dtype=torch.float64)
    segments = torch.tensor([[0] * 20 + [1] * 1 + [4] * 49])
    want = Want(entropy=True, received=True, mass_by_distance=(0, 1, 8, 70))
    packed = attend(call.replace(segments=segments), want, implementation)
    mass = torch.zeros_like(packed.mass_by_distance)
    for first, last in ((0, 20), (20, 21), (21, 70)):
        q, k, v = (x[:, :, first:last] for x in (call.q, call.k, call.v))
        alone = attend(call.replace(q=q, k=k, v=v, q_offset=None), want, implementation)
        for name in ("output", "entropy", "received"):
            torch.testing.assert_close(getattr(packed, name)[:, :, first:last], getattr(alone, name))
        mass += alone.mass_by_distance
    torch.testing.assert_close(packed.mass_by_distance, mass)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_a_scale_of_nothing_attends_uniformly(implementation: str) -> None:
    call = random_call(queries=30, heads=2, kv_heads=1, dtype=torch.float64)
    result = attend(call.replace(logit_scale=torch.tensor([1.0, 0.0])), Want(entropy=True), implementation)
    torch.testing.assert_close(result.entropy[:, 1], torch.arange(1, 31).double().log().expand(2, -1))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"segments": torch.zeros(2, 9, dtype=torch.long)}, "segments"),
        ({"segments": torch.arange(10, 0, -1).expand(2, -1)}, "segments"),
        ({"key_bias": torch.zeros(2, 3, 10)}, "key_bias"),
        ({"logit_scale": torch.ones(3)}, "logit_scale"),
        ({"logit_scale": -torch.ones(4)}, "logit_scale"),
        ({"scale": 0.0}, "scale"),
        ({"head_output": HeadOutput(torch.ones(5))}, "head_output.scale"),
        ({"head_output": HeadOutput(torch.ones(4), (4,), torch.zeros(1, 1, 1, 16))}, "head_output.patched"),
        ({"head_output": HeadOutput(torch.ones(4), (0,))}, "head_output.patches"),
        ({"head_output": HeadOutput(torch.ones(4), (0,), torch.zeros(1, 2, 1, 16))}, "head_output.patches"),
        ({"head_output": HeadOutput(torch.ones(4), (0,), torch.zeros(1, 1, 1, 16), torch.ones(1, 2, 1))}, "kept"),
        ({"head_output": HeadOutput(torch.ones(4), kept=torch.ones(1, 0, 1))}, "head_output.kept"),
    ],
)
def test_a_malformed_call_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ContractError, match=name):
        attend(random_call(queries=10).replace(**change))


@pytest.mark.parametrize("selection", [{"heads": [4]}, {"heads": []}, {"queries": slice(5, 5)}])
def test_a_selection_that_holds_nothing_is_named(selection: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="selection"):
        random_call(queries=10).select(**selection)  # type: ignore[arg-type]
