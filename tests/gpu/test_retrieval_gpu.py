"""Retrieval heads and frequency chunks on a CUDA device: the same as on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import attnscope
from attnscope.core.ids import HeadId
from attnscope.edits.uniform_attention import UniformAttention
from attnscope.engine.collect import collect
from attnscope.engine.frequency import agreement
from attnscope.engine.frequency_pass import Sampling
from attnscope.engine.loss import next_token_loss
from attnscope.engine.patterns import vertical_slash
from attnscope.engine.qrhead import qr_scores
from attnscope.engine.retrieval_decoding import decoded_retrieval
from attnscope.models._rotary import find_rotary
from attnscope.tasks._answers import with_answers
from attnscope.tasks.needle_grid import NeedleGrid
from attnscope.tasks.passages import Passages
from attnscope.tasks.text import Text

if TYPE_CHECKING:
    from attnscope.models._base import Scope

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@lru_cache(maxsize=4)
def pocket(device: str, dtype: str = "float32") -> Scope:
    return attnscope.load(device=device, dtype=dtype)


@lru_cache(maxsize=1)
def needles() -> Any:
    return NeedleGrid(lengths=(300,), depths=(0.0, 0.5, 1.0), repeats=1).build(pocket("cpu").tokenizer)


@pytest.mark.parametrize("implementation", ["triton", "tiled"])
def test_retrieval_by_decoding_and_by_teacher_forcing(implementation: str) -> None:
    here = decoded_retrieval(pocket("cpu"), needles(), steps=6).retrieval_decoded
    there = decoded_retrieval(pocket("cuda"), needles(), steps=6, implementation=implementation)
    assert (there.answer_recall == 1).all()
    np.testing.assert_allclose(there.retrieval_decoded, here, atol=0.21)  # one near tie of the largest weight
    assert float(abs(there.retrieval_decoded - here).mean()) < 0.005
    forced = collect(pocket("cuda"), with_answers(needles()), ["retrieval"], implementation=implementation).retrieval
    assert float(abs(forced - here).mean()) < 0.005


def test_bfloat16_finds_the_same_heads() -> None:
    here, there = (
        decoded_retrieval(scope, needles(), steps=6).retrieval_decoded.mean("prompt").values > 0.5
        for scope in (pocket("cpu"), pocket("cuda", "bfloat16"))
    )
    assert (here == there).all()


def test_question_focused_heads() -> None:
    task = Passages(n=3, passages=3, length=180)
    prompts, null = task.build(pocket("cpu").tokenizer), task.null(pocket("cpu").tokenizer)
    there, here = (qr_scores(pocket(device), prompts, null).qr_score for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, atol=1e-3)


def test_columns_and_diagonals() -> None:
    prompts = Text(n=2, length=300).build(pocket("cpu").tokenizer)
    there, here = (vertical_slash(pocket(device), prompts).pattern_mass for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, atol=3e-3)


def test_uniform_attention() -> None:
    prompts = Text(n=2, length=200).build(pocket("cpu").tokenizer)
    edit = UniformAttention((HeadId(7, 0), HeadId(3, 1)))
    there, here = (next_token_loss(pocket(device), prompts, edits=[edit]) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, atol=2e-3)


def test_frequency_chunks() -> None:
    prompts, sampling = Text(n=2, length=512).build(pocket("cpu").tokenizer), Sampling((16, 64), 6, 0)
    found = []
    for device in ("cuda", "cpu"):
        rotary = find_rotary(pocket(device))
        found.append(agreement(pocket(device), prompts, rotary, sampling, order=rotary.order))
    for name in found[0].data_vars:
        there, here = (np.asarray(each[name], dtype=float) for each in found)
        assert np.nanmean(np.abs(there - here)) < 5e-3, name
