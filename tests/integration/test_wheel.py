"""An installed wheel is complete: the package, the kernels and the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_what_every_command_needs(installed: Path) -> None:
    for name in (
        "attnscope/py.typed",
        "attnscope/core/head_report.schema.json",
        "attnscope_kernels/py.typed",
        "attnscope_data/pocket/model.safetensors",
        "attnscope_data/pocket/tokenizer.json",
        "attnscope_data/pocket/heldout.txt",
        "attnscope_data/published/sinks.json",
        "attnscope_data/shapes/gpt2.json",
        "attnscope_data/shapes/llama-3.1-8b.json",
        "attnscope_data/shapes/qwen3-0.6b.json",
        "attnscope_data/shapes/qwen3-32b.json",
    ):
        assert (installed / name).is_file(), name
    for source, package in (
        (ROOT / "attnscope", "attnscope"),
        (ROOT / "kernels/attnscope_kernels", "attnscope_kernels"),
    ):
        for file in source.rglob("*.py"):
            assert (installed / package / file.relative_to(source)).is_file(), file
    assert not (installed / "kernels").exists()
    assert not (installed / "tests").exists()


def test_the_embedded_model_loads_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import attnscope, attnscope_kernels;"
        f"assert attnscope.__file__.startswith({str(installed)!r}), attnscope.__file__;"
        f"assert attnscope_kernels.__file__.startswith({str(installed)!r});"
        "scope = attnscope.load(device='cpu'); assert scope.info.n_heads > 1; assert scope.tokenizer('a b').input_ids;"
        "from attnscope.models._loading import outline;"
        "assert outline(config='llama-3.1-8b', device='cpu').info.n_layers == 32"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_editable_install_finds_the_checkout_s_data(tmp_path: Path) -> None:
    code = "from attnscope.core.paths import data_path; print(data_path('pocket'))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == ROOT / "data" / "pocket"


def test_kernels_folder_does_not_shadow_the_package_of_that_name() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "from transformers import LlamaForCausalLM"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
