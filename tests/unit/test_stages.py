"""Parts of a long job: made once, read back as they were, refused where they belong to another job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from attnscope.core.errors import OutputError
from attnscope.core.report import Missing
from attnscope.core.stages import Stages


@dataclass(frozen=True)
class Part:
    name: str
    values: tuple[float, ...]


def never() -> None:
    raise AssertionError("made twice")


def test_parts_are_made_once_and_come_back_as_they_were(tmp_path: Path) -> None:
    data = xr.Dataset({"x": (("a",), np.array([1.5, np.nan]))}, attrs={"n": 3})
    first = Stages(tmp_path / "job.partial", "one")
    part = Part("a", (1.0, float("inf"), 0.1 + 0.2))
    assert first.keep("part", Part | None, lambda: part) == part
    assert first.keep("nothing", Part | None, lambda: None) is None
    losses = first.keep("losses", list[float], lambda: [1.0, float("nan")])
    first.keep("missing", Missing, lambda: Missing(reason="why"))
    first.keep_dataset("data", lambda: data)
    again = Stages(tmp_path / "job.partial", "one")
    assert again.keep("part", Part | None, never) == part
    assert again.keep("nothing", Part | None, never) is None
    np.testing.assert_equal(again.keep("losses", list[float], never), losses)
    assert again.keep("missing", Missing, never) == Missing(reason="why")
    xr.testing.assert_identical(again.keep_dataset("data", never), data)
    again.clear()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept() -> None:
    stages, made = Stages(None, "one"), []
    for _ in range(2):
        stages.keep("part", int, lambda: made.append(1) or 5)
    assert len(made) == 2
    stages.clear()


def test_an_interrupted_part_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    def stop() -> int:
        raise KeyboardInterrupt

    stages = Stages(tmp_path / "job", "one")
    stages.keep("done", int, lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        stages.keep("part", int, stop)
    assert Stages(tmp_path / "job", "one").keep("part", int, lambda: 7) == 7


def test_other_jobs_and_corrupt_parts_are_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    Stages(folder, "one").keep("part", int, lambda: 5)
    with pytest.raises(OutputError, match="another model, other prompts or another plan"):
        Stages(folder, "two")
    (folder / "part.json").write_text("{broken")
    with pytest.raises(OutputError, match=r"part\.json"):
        Stages(folder, "one").keep("part", int, lambda: 5)
    assert (folder / "part.json").read_text() == "{broken"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(OutputError, match="Delete the folder"):
        Stages(mine, "one")
    assert (mine / "notes.txt").read_text() == "keep"
