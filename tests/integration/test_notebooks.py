"""Every notebook's code runs, cell by cell, on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def executed(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path) -> None:
    assert executed(path)


def test_quickstart_tells_the_truth() -> None:
    names = executed(NOTEBOOKS[0])
    assert names["before"] > 0.95
    assert names["after"] < 0.1
