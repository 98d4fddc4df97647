"""The pieces of the tiled implementation, and the helpers that the laws rely on."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import attnscope_kernels
from attnscope_kernels import Want, attend
from attnscope_kernels.errors import ContractError
from attnscope_kernels.impl import _plan, _sdpa
from attnscope_kernels.impl._diagonals import diagonal_sums
from attnscope_kernels.impl._shapes import asks_statistics, block_of
from attnscope_kernels.testing import compare, forbid_square, poisoned_memory, random_call, random_want

PACKAGE = Path(attnscope_kernels.__file__).parent
MODULES = sorted(
    ".".join(("attnscope_kernels", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "triton.py") and not path.name.startswith("_triton")
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        pytest.skip("triton is not installed")
    globs = {**vars(loaded), "torch": torch}
    assert doctest.testmod(loaded, globs=globs).failed == 0


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (4, 4), (5, 3), (7, 40), (3, 6)])
def test_diagonal_sums(rows: int, columns: int) -> None:
    weights, each = torch.rand(2, rows, columns, dtype=torch.float64), torch.rand(2, 1, rows, dtype=torch.float64)
    scaled = weights * each.transpose(1, 2)
    expected = [scaled.diagonal(t, dim1=1, dim2=2).sum(-1) for t in range(1 - rows, columns)]
    torch.testing.assert_close(diagonal_sums(weights, each), torch.stack(expected, dim=-1))


@pytest.mark.parametrize(("length", "count"), [(5, 2), (7, 7), (10, 3), (251, 64), (4, 1)])
def test_block_of_is_the_contract(length: int, count: int) -> None:
    found = block_of(length, count, torch.device("cpu"))
    for block in range(count):
        inside = torch.arange(block * length // count, (block + 1) * length // count)
        assert torch.equal((found == block).nonzero()[:, 0], inside)


@pytest.mark.parametrize("room", [1, 100, 3_000, 20_000, 10**9])
def test_any_budget_gives_the_same_statistics(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts may be batches, KV groups or pieces of a group."""
    call = random_call(batch=3, queries=70, heads=8, kv_heads=2, padding="left", knockouts=1, sink_logits=True)
    want = random_want(call)
    expected = attend(call, want, "reference")
    monkeypatch.setitem(_plan.ELEMENTS, "cpu", room)
    assert max(compare(attend(call, want, "tiled"), expected).values()) < 1e-5


@pytest.mark.parametrize("room", [1, 100, 3_000, 20_000, 10**9])
def test_parts_cover_every_head_once(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_plan.ELEMENTS, "cpu", room)
    call = random_call(batch=3, heads=12, kv_heads=3)
    seen = torch.zeros(3, 12)
    for part in _plan.parts(call, 10, 63):
        seen[part.batch, part.heads] += 1
        q = call.q.unflatten(1, (3, 4))[part.batch, part.groups, part.members]
        assert torch.equal(q.flatten(1, 2), call.q[part.batch, part.heads])
    assert bool((seen == 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    "shape", [{}, {"causal": False}, {"keys": 600, "q_offset": 0}, {"keys": 600, "causal": False}, {"kv_heads": 4}]
)
def test_output_alone_forms_no_square(dtype: torch.dtype, gradients: bool, shape: dict[str, object]) -> None:
    call = random_call(**{"batch": 1, "queries": 509, "dtype": dtype, **shape})  # type: ignore[arg-type]
    assert _sdpa.covers(call)
    if gradients:
        call = call.replace(q=call.q.requires_grad_())
    with forbid_square(509):
        z = attend(call, Want(), "tiled").output
        assert z is not None
        if gradients:
            z.float().sum().backward()
    expected = attend(call, Want(), "reference").output
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 3e-3}.get(dtype, 1e-5)
    torch.testing.assert_close(z, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("feature", [{"window": 9}, {"softcap": 2.0}, {"sink_logits": True}, {"padding": "left"}])
def test_masked_calls_are_not_for_the_fused_path(feature: dict[str, object]) -> None:
    assert not _sdpa.covers(random_call(**feature))  # type: ignore[arg-type]
    call = random_call(**feature)  # type: ignore[arg-type]
    call = call.replace(v=call.v.requires_grad_())
    with pytest.raises(ContractError, match="gradients"):
        attend(call, Want(), "tiled")
    with torch.no_grad():
        assert attend(call, Want(), "tiled").output is not None


@pytest.mark.parametrize("name", ["output", "value_norm"])
def test_what_is_no_statistic(name: str) -> None:
    assert not asks_statistics(Want(**{"output": False, name: True}))
    assert asks_statistics(Want(mass_by_distance=(0, 1)))
    assert asks_statistics(Want(pooled_map=(1, 1)))


def test_one_query_many_keys_and_heads() -> None:
    call = random_call(batch=1, queries=1, keys=3000, heads=16, kv_heads=2)
    want = random_want(call)
    assert max(compare(attend(call, want, "tiled"), attend(call, want, "reference")).values()) < 1e-5


def test_poison_shows_and_leaves() -> None:
    with poisoned_memory():
        assert bool(torch.empty(8).isnan().all())
    assert not torch.are_deterministic_algorithms_enabled()


def test_compare_sees_differences() -> None:
    call = random_call()
    want = random_want(call)
    result = attend(call, want, "reference")
    other = attend(call.replace(scale=2 * call.scale), want, "reference")
    errors = compare(other, result)
    assert errors.pop("value_norm") == 0
    assert errors.pop("mass_in.one") < 1e-6
    assert errors.pop("top_keys.some.keys") == 0  # the scale keeps the order
    assert min(errors.values()) > 1e-3
    assert compare(attend(call, Want(lse=True), "reference"), result)["entropy"] == float("inf")


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, attnscope_kernels; assert not {'torch', 'triton', 'attnscope'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, attnscope_kernels.api; assert not {'triton', 'transformers', 'attnscope'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
