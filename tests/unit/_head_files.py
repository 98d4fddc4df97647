"""Made-up head files of every format, and a run that holds what each of them is made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _fake_report import fake_report

from attnscope.core import statistics
from attnscope.core.head_file import Chunks, Grids, HeadFile, Pattern, Patterns, RankedHead, Ranking, Trials
from attnscope.core.names import Variable
from attnscope.core.run_directory import RunDirectory, write_run

FOLDERS = ("duo_attention", "lychee")
NAMES = ("duo_attention", "fasa", "lychee", "minference", "qrhead", "razor", "retrieval_head")


def rows(values: np.ndarray):
    return tuple(tuple(row) for row in values.tolist())


def made_up(name: str, layers: int, heads: int, rng: np.random.Generator) -> HeadFile:
    """A HeadFile of random values; `heads` counts heads of the format's own space."""
    values = rng.random((layers, heads)) * 10.0 ** rng.integers(-8, 3, (layers, heads))
    config: dict = {"model_name": "m", "sink_size": int(rng.integers(9)), "recent_size": 256, "lr": float(rng.random())}
    space = "kv_head" if name in FOLDERS else "query_head"
    if name == "duo_attention":
        content = Grids(main="gate", values={"gate": rows(values - 0.001)})
    elif name == "lychee":
        grids = {
            "full_head": rng.integers(0, 2, (layers, heads)).astype(float),
            "a": values + 1e-6,
            "b": (values + 0.5).astype(np.float32).astype(float),
        }
        content = Grids(main="full_head", values={key: rows(grid) for key, grid in grids.items()})
    elif name == "razor":
        content = Grids(main="induction", values={"induction": rows(values), "echo": rows(values[::-1])})
        config = {"model": "m", "sink_tokens": 4, "protected": rng.integers(0, 2, (layers, 1)).astype(bool).tolist()}
    elif name == "retrieval_head":
        trials = [[tuple(rng.random(rng.integers(1, 5)).tolist()) for _ in range(heads)] for _ in range(layers)]
        content, config = Trials(trials=tuple(map(tuple, trials))), {}
    elif name == "minference":
        kinds = ("vertical_and_slash", "stream_llm", "block_sparse")
        patterns = [
            [
                Pattern(
                    name=kinds[rng.integers(3)],
                    vertical=int(rng.integers(9999)),
                    slash=int(rng.integers(9999)),
                    score=int(v) if rng.random() < 0.3 else v,
                )
                for v in row
            ]
            for row in values.tolist()
        ]
        content, config = Patterns(patterns=tuple(map(tuple, patterns))), {}
    elif name == "qrhead":
        order = np.argsort(-values, axis=None)
        listed = [(*divmod(int(i), heads), float(values.flat[i])) for i in order]
        content, config = Ranking(heads=tuple(RankedHead(layer=a, head=b, score=c) for a, b, c in listed)), {}
    else:
        dominant = [[tuple(rng.permutation(16)[:4].tolist()) for _ in range(heads)] for _ in range(layers)]
        agreement = [[(None, *rng.random(15).tolist()) for _ in range(heads)] for _ in range(layers)]
        content = Chunks(
            pairing="adjacent" if rng.random() < 0.5 else "rotate_half",
            n_chunks=16,
            dominant=tuple(map(tuple, dominant)),
            agreement=tuple(map(tuple, agreement)),
        )
        config = {"model": "m"}
    model = None if name in ("retrieval_head", "minference", "qrhead") else "m"
    return HeadFile(
        format=name, space=space, n_layers=layers, n_heads=heads, model_id=model, content=content, config=config
    )


def full_run(path: Path, seed: int = 0, only: tuple[str, ...] | None = None) -> RunDirectory:
    """A finished run with every dataset that a format is made from, or the named ones."""
    report, stats = fake_report()
    info, rng = report.model, np.random.default_rng(seed)
    layers, heads, kv = info.n_layers, info.n_heads, info.n_kv_heads
    shape = (layers, heads)

    def variable(name: str, *dims: str) -> Variable:
        return Variable(name, dims, "1", name)

    def alike(names, dims, draw):
        return [(variable(name, *dims), draw()) for name in names]

    def made(values, **attrs):
        return statistics.dataset(info, values, attrs=attrs)

    gate, per_head = ("layer", "kv_head"), ("prompt", "layer", "head")
    dominant = np.argsort(rng.random((layers, heads, 16)))[..., :4].astype(float)
    more = {
        "duo_gates": made(
            [(variable("duo_gate", *gate), rng.random((layers, kv)))],
            sink_tokens=8, recent_tokens=32, learning_rate=0.02, steps=20,
        ),
        "hardkuma_gates": made(
            [(variable(f"hardkuma_{x}", *gate), 0.2 + 3 * rng.random((layers, kv))) for x in "ab"],
            sink_tokens=8, recent_tokens=32, steps=30, target=3 / (layers * kv),
        ),
        "patterns": made(
            [
                *alike(("vertical_size", "slash_size"), ("layer", "head"), lambda: rng.integers(1, 99, shape)),
                (variable("vertical_slash_mass", "layer", "head"), rng.random((layers, heads))),
            ]
        ),
        "qrhead": made([(variable("qr_score", *per_head), rng.random((3, layers, heads)))]),
        "razor": made(alike(("razor_echo", "razor_induction"), per_head, lambda: rng.random((2, layers, heads)))),
        "frequency": made(
            [
                (variable("dominant_chunk", "layer", "head", "rank"), dominant),
                (variable("contextual_agreement", "layer", "head", "chunk"), rng.random((layers, heads, 16))),
            ],
            pairing="rotate_half",
        ),
    }  # fmt: skip
    kept = {name: data for name, data in more.items() if only is None or name in only}
    return write_run(path, report, {**stats, **kept}, {})
