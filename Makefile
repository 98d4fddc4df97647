PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: report test test-kvpress lint type bench bench-gpu test-gpu explore notebooks schema clean

report: $(STAMP)
	$(BIN)/attnscope report --out runs/pocket

test: $(STAMP)
	$(BIN)/pytest -n auto

# kvpress needs an older transformers, so it has an environment of its own
test-kvpress: $(STAMP)
	test -x .venv-kvpress/bin/python || $(PYTHON) -m venv .venv-kvpress
	.venv-kvpress/bin/pip install -q -r tests/consumers/kvpress/requirements.txt
	$(BIN)/python tests/consumers/kvpress/prepare.py runs/kvpress
	.venv-kvpress/bin/python tests/consumers/kvpress/run.py data/pocket runs/kvpress/pattern runs/kvpress/needles.json \
		--out runs/kvpress/figures.json --assert-budget 0.25

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python kernels/benchmarks/statistics_cpu.py
	$(BIN)/python kernels/benchmarks/pocket_cpu.py
	$(BIN)/python kernels/benchmarks/reports_cpu.py

bench-gpu:
	PYTHONPATH=.:kernels $(PYTHON) kernels/benchmarks/attention_gpu.py
	PYTHONPATH=.:kernels $(PYTHON) kernels/benchmarks/llama_8b_shape.py
	PYTHONPATH=.:kernels $(PYTHON) kernels/benchmarks/frequency.py
	PYTHONPATH=.:kernels $(PYTHON) kernels/benchmarks/collectors_fold.py

test-gpu:
	PYTHONPATH=.:kernels $(PYTHON) -m pytest -p no:benchmark -m gpu tests/gpu

explore: report
	$(BIN)/python -m webbrowser "file://$(CURDIR)/runs/pocket/report.html"

notebooks: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[notebooks]'
	$(BIN)/jupyter lab notebooks

schema: $(STAMP)
	$(BIN)/python -c "import json; from attnscope.core.report import schema, schema_path; schema_path().write_text(json.dumps(schema(), indent=1) + '\n')"

clean:
	rm -rf $(VENV) build dist *.egg-info

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
