"""The laws of residual statistics, for every implementation that can run here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
from attnscope_kernels.residual import CHUNK_BYTES, ResidualStatistics, choose, residual_statistics
from attnscope_kernels.testing import poisoned_memory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLEMENTATIONS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")),
]
SHAPES = [(2, 1, 8), (2, 63, 96), (1, 111, 257), (3, 251, 32), (1, 1000, 40), (1, 130, 1500), (2, 5, 1)]
CASES = [*((shape, torch.bfloat16) for shape in SHAPES), (SHAPES[1], torch.float16), (SHAPES[1], torch.float32)]
FIELDS = ("norm", "max_abs", "argmax", "dimension_sum_abs", "tokens")


def stream(b: int, t: int, m: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(b, t, m, generator=torch.Generator().manual_seed(seed))
    x[..., m // 2] *= 30  # a residual sink
    return x.to(DEVICE, dtype)


def ragged(b: int, t: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Padding on the left, and each prompt's first token; the last of several prompts is all padding."""
    starts = torch.randint(0, t, (b,), generator=torch.Generator().manual_seed(seed))
    valid = torch.arange(t) >= starts[:, None]
    if b > 1:
        valid[-1] = False
    return valid.to(DEVICE), starts.to(DEVICE)


def definition(x: Tensor, valid: Tensor | None, skip: Tensor | None) -> ResidualStatistics:
    """The formula in float64, without chunks."""
    size = x.double().abs()
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
    kept = real if skip is None else real & (torch.arange(x.shape[1], device=x.device) != skip[:, None])
    largest, where = size.max(-1)
    return ResidualStatistics(
        x.double().norm(dim=-1).where(real, torch.nan),
        largest.where(real, torch.nan),
        where.where(real, -1),
        size.where(kept[..., None], 0.0).sum(1),
        kept.sum(1),
        "definition",
    )


def agree(found: ResidualStatistics, expected: ResidualStatistics, rtol: float = 2e-6) -> None:
    for name in FIELDS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(
            mine.double(), theirs.double(), rtol=rtol, atol=1e-30, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_equals_the_definition(implementation: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = stream(*shape, dtype)
    valid, skip = ragged(*shape[:2])
    for mask, left_out in ((None, None), (valid, None), (None, skip), (valid, skip))[:: 3 if shape[1] > 100 else 1]:
        with poisoned_memory():
            found = residual_statistics(x, mask, skip=left_out, implementation=implementation)
        agree(found, definition(x, mask, left_out))
        assert found.implementation == implementation
        assert found.norm.dtype == found.max_abs.dtype == torch.float32
        assert found.argmax.dtype == found.tokens.dtype == torch.int64
        assert found.dimension_sum_abs.dtype == torch.float64


def test_float64_stays_float64() -> None:
    x = stream(2, 63, 96, torch.float64)
    found = residual_statistics(x)
    agree(found, definition(x, None, None), 1e-14)
    assert found.norm.dtype == torch.float64


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_layout(implementation: str) -> None:
    wide = stream(2, 70, 300)
    valid, _ = ragged(2, 140)
    mask = valid[:, ::2]  # not contiguous either
    for x in (wide[..., :200], wide[:, ::2, 40:], wide.transpose(0, 1).contiguous().transpose(0, 1), wide[..., ::3]):
        agree(
            residual_statistics(x, mask[:, : x.shape[1]], implementation=implementation),
            definition(x, mask[:, : x.shape[1]], None),
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_tokens_and_no_prompts(implementation: str) -> None:
    for b, t in ((2, 0), (0, 3)):
        found = residual_statistics(torch.ones(b, t, 8, device=DEVICE), implementation=implementation)
        assert found.norm.shape == found.argmax.shape == (b, t)
        assert found.dimension_sum_abs.tolist() == [[0.0] * 8] * b
        assert found.tokens.tolist() == [0] * b


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_same_on_every_call(implementation: str) -> None:
    x = stream(2, 150, 96, torch.bfloat16)
    first, second = (residual_statistics(x, implementation=implementation) for _ in range(2))
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_stands_on_padding_does_not_matter(implementation: str) -> None:
    x = stream(2, 63, 96)
    valid, skip = ragged(2, 63)
    dirty = x.clone()
    dirty[~valid] = torch.nan
    agree(residual_statistics(dirty, valid, skip=skip, implementation=implementation), definition(x, valid, skip))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_nan_in_the_stream_shows(implementation: str) -> None:
    x = stream(1, 5, 8)
    x[0, 2, 3], x[0, 4, 6] = torch.nan, torch.inf
    found = residual_statistics(x, implementation=implementation)
    assert found.norm.isnan().tolist() == found.max_abs.isnan().tolist() == [[False, False, True, False, False]]
    assert found.max_abs[0, 4].item() == found.norm[0, 4].item() == torch.inf
    assert found.argmax[0, 2].item() == 3
    assert found.argmax[0, 4].item() == 6
    assert found.dimension_sum_abs.isnan().nonzero()[:, 1].tolist() == [3]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_ties_go_to_the_first_dimension(implementation: str) -> None:
    x = torch.zeros(1, 2, 1300, device=DEVICE)
    x[0, 1, 200], x[0, 1, 1200] = -7.0, 7.0
    assert residual_statistics(x, implementation=implementation).argmax.tolist() == [[0, 200]]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_long_prompts_lose_no_accuracy(implementation: str) -> None:
    t = 131072 if implementation == "torch" or DEVICE == "cuda" else 1024
    x = stream(1, t, 8, torch.bfloat16).abs() + 1  # one sign: the worst for a running sum
    found = residual_statistics(x, implementation=implementation)
    agree(found, definition(x, None, None), 1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = stream(2, 251, 96)
    valid, skip = ragged(2, 251)
    whole = residual_statistics(x, valid, skip=skip, implementation="torch")
    monkeypatch.setitem(CHUNK_BYTES, DEVICE, 96 * 4 * 2 * 50)
    agree(residual_statistics(x, valid, skip=skip, implementation="torch"), whole)


def test_a_skip_outside_the_prompt_leaves_nothing_out() -> None:
    x = stream(2, 9, 8)
    found = residual_statistics(x, skip=torch.tensor([-1, 0], device=DEVICE))
    assert found.tokens.tolist() == [9, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 3)}, r"x: found shape \(2, 3\); expected \[B, T, M\]"),
        ({"x": torch.ones(2, 3, 0)}, "M at least 1"),
        ({"x": torch.ones(2, 3, 4, dtype=torch.int32)}, "x: found torch.int32"),
        ({"valid": torch.ones(2, 3)}, r"valid: found torch.float32 \(2, 3\)"),
        ({"valid": torch.ones(2, 4, dtype=torch.bool)}, r"expected torch.bool \(2, 3\) on cpu"),
        ({"skip": torch.zeros(3, dtype=torch.long)}, r"skip: found torch.int64 \(3,\)"),
        ({"skip": torch.zeros(2)}, "skip: found torch.float32"),
    ],
)
def test_malformed_input_is_refused(change: dict[str, Tensor], message: str) -> None:
    given = {"x": torch.ones(2, 3, 4), **change}
    with pytest.raises(ContractError, match=message):
        residual_statistics(given.pop("x"), **given)


def test_an_explicit_request_never_falls_back() -> None:
    with pytest.raises(ImplementationUnavailableError, match="'fast': expected auto or one of torch, triton"):
        residual_statistics(torch.ones(1, 2, 3), implementation="fast")
    with pytest.raises(ImplementationUnavailableError, match=r"torch.float64.*Ask for 'torch', which covers it"):
        residual_statistics(torch.ones(1, 2, 3, dtype=torch.float64), implementation="triton")


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("attnscope_kernels._residual_triton")
    monkeypatch.setattr(module, "INTERPRETED", False)
    with pytest.raises(ImplementationUnavailableError, match="on cpu, not on a CUDA device"):
        residual_statistics(torch.ones(1, 2, 3), implementation="triton")


def test_auto_takes_torch_on_the_cpu_and_for_float64() -> None:
    assert choose(torch.ones(1, 2, 3)) == "torch"
    assert choose(torch.ones(1, 2, 3, dtype=torch.float64, device=DEVICE)) == "torch"
