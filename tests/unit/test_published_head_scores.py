"""Files that real decoders ship import, and come back identical; skipped where they are not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from attnscope.core.head_file import Chunks, HeadFile
from attnscope.reports.head_files import detect_format, export_heads, read_head_file

ROOT = Path(__file__).resolve().parents[2]
FOLDER = next((p / "shared/head_scores" for p in ROOT.parents if (p / "shared/head_scores").is_dir()), None)
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no published head scores beside the project")


def published() -> list[Path]:
    if FOLDER is None:
        return []
    tables = [path.parent for path in FOLDER.rglob("full_attention_heads.tsv")]
    return sorted([*tables, *FOLDER.rglob("minference/configs/*.json"), *FOLDER.rglob("*.yaml")])


def test_all_of_them_are_found():
    kinds = [detect_format(path) for path in published()]
    assert [kinds.count(name) for name in ("duo_attention", "minference", "qrhead")] == [6, 14, 13]


@pytest.mark.parametrize("path", published(), ids=lambda path: f"{path.parent.name}/{path.name}"[:60])
def test_import_export_import_is_identical(path, tmp_path):
    file = read_head_file(path)
    name = path.name if path.is_file() else "folder"
    _, place = export_heads(HeadFile.from_json(file.to_json()), file.format, tmp_path / name)
    again = read_head_file(place)
    assert again.model_copy(update={"source": file.source}) == file
    if file.format != "qrhead":  # YAML has comments that say nothing
        assert again.source.sha256 == file.source.sha256
    assert not isinstance(file.content, Chunks)


@pytest.mark.parametrize(
    ("model", "fraction"),
    [("Llama-2-7B-32K-Instruct", 0.436), ("Meta-Llama-3.1-8B-Instruct", 0.914), ("Mistral-7B-Instruct-v0.2", 0.953)],
)
def test_the_published_share_of_full_heads(model, fraction):
    path = next(path for path in published() if path.parent.name == model)
    file = read_head_file(path)
    assert float(np.mean(file.scores() >= 0.5)) == pytest.approx(fraction, abs=5e-4)
    assert file.config["sink_size"] == 128
    assert file.config["recent_size"] == 256


def test_both_of_minference_s_kinds_of_score_and_pattern():
    files = {path.name: read_head_file(path) for path in published() if path.suffix == ".json"}
    whole = next(file for name, file in files.items() if name.startswith("Llama_3_8B"))
    assert all(isinstance(item.score, int) for row in whole.content.patterns for item in row)
    names = {item.name for file in files.values() for row in file.content.patterns for item in row}
    assert names == {"vertical_and_slash", "stream_llm"}


def test_qrhead_lists(tmp_path):
    paths = {path.name: path for path in published() if path.suffix == ".yaml"}
    lists = {name: read_head_file(path).content for name, path in paths.items()}
    assert {len(content.heads) for content in lists.values()} == {0, 16, 32}
    assert sum(content.every_head for content in lists.values()) == 5
    text = json.dumps(read_head_file(paths["Llama-3.1-8B-Instruct_qr_head_LME.yaml"]).model_dump(mode="json"))
    assert '"layer": 13, "head": 18' in text
