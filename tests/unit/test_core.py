"""HeadId, ModelInfo, registry, names, statistics."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from attnscope.core import statistics
from attnscope.core.errors import StatisticsError, UnknownHeadError, UnknownNameError
from attnscope.core.ids import HeadId
from attnscope.core.model_info import ModelInfo
from attnscope.core.names import Variable
from attnscope.core.registry import Registry
from attnscope.core.report import schema, schema_path

INFO = ModelInfo(
    model_id="m",
    architecture="A",
    backend="toy",
    n_layers=8,
    attention_layers=(3, 7),
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_model=32,
    vocab_size=50,
)


def test_head_id() -> None:
    assert str(HeadId(12, 5)) == repr(HeadId(12, 5)) == "L12H5"
    assert HeadId.parse("L12H5") == HeadId.parse("12-5") == HeadId.parse(" 12.5 ") == HeadId(12, 5)
    assert sorted([HeadId(2, 0), HeadId(1, 9)])[0] == HeadId(1, 9)
    for bad in ("", "H5", "L1", "L-1H2", "L1H2x", "1/2"):
        with pytest.raises(UnknownHeadError, match="expected a name such as L12H5"):
            HeadId.parse(bad)


def test_model_info_labels_real_layers() -> None:
    assert INFO.heads[0] == HeadId(3, 0)
    assert len(INFO.heads) == 8
    assert INFO.rows == {3: 0, 7: 1}
    assert [INFO.kv_head(h) for h in range(4)] == [0, 0, 1, 1]
    assert INFO.check(HeadId(7, 3)) == HeadId(7, 3)
    for bad in (HeadId(0, 0), HeadId(3, 4)):
        with pytest.raises(UnknownHeadError, match=str(bad)):
            INFO.check(bad)
    with pytest.raises(ValidationError, match="do not divide"):
        INFO.model_copy(update={}).model_validate({**INFO.model_dump(), "n_kv_heads": 3})


def test_registry_suggests_and_imports_nothing() -> None:
    registry = Registry("attnscope.collectors", "collector")
    with pytest.raises(UnknownNameError, match="Did you mean induction"):
        registry.get("inducton")
    code = (
        "import sys; from attnscope.core.registry import Registry;"
        "names = Registry('attnscope.collectors', 'collector').names(); assert 'induction' in names;"
        "assert not any(m.startswith('attnscope.collectors.') for m in sys.modules); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_statistics_refuse_what_is_not_declared() -> None:
    with pytest.raises(StatisticsError, match="dims"):
        statistics.dataset(INFO, [(Variable("x", ("banana",), "1", "x"), np.zeros(2))])
    with pytest.raises(StatisticsError, match="shape"):
        statistics.dataset(INFO, [(Variable("x", ("layer",), "1", "x"), np.zeros((2, 2)))])
    with pytest.raises(StatisticsError, match="units"):
        statistics.check(xr.Dataset({"x": (("layer",), np.zeros(2))}))
    with pytest.raises(StatisticsError, match="Collect again"):
        statistics.require(xr.Dataset(), "entropy")


def test_statistics_label_layers_and_reduce_prompts() -> None:
    values = np.arange(16.0).reshape(2, 2, 4)
    values[0, 0, 0] = np.nan
    data = statistics.dataset(INFO, [(Variable("x", ("prompt", "layer", "head"), "nat", "an x"), values)])
    assert data.layer.values.tolist() == [3, 7]
    means = statistics.head_means(data)
    assert means.x.sel(layer=3, head=0) == values[1, 0, 0]
    assert means.x.attrs["units"] == "nat"
    assert len(means.to_dataframe()) == 8


def test_committed_schema_is_current() -> None:
    assert json.loads(schema_path().read_text()) == json.loads(json.dumps(schema())), "run: make schema"


@pytest.mark.parametrize("module", ["attnscope", "attnscope.core.run_directory", "attnscope.cli", "attnscope_kernels"])
def test_import_is_light(module: str) -> None:
    heavy = ["torch", "triton", "transformers", "transformer_lens", "nnsight", "plotly", "streamlit", "datasets"]
    code = f"import sys, {module}; loaded = [m for m in {heavy} if m in sys.modules]; assert not loaded, loaded"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_present_and_reports_work_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None;"
        "import attnscope.reports.build, attnscope.analyses.taxonomy, attnscope.present.html, attnscope.present.text"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
