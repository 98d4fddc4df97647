"""A report of 64 made-up heads: plausible scores, every kind of evidence, and tokens that try to do harm."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr

from attnscope.core import statistics
from attnscope.core.model_info import ModelInfo
from attnscope.core.names import Variable
from attnscope.core.report import CausalCheck, HeadReport, Interval, Measured, PromptSet, Provenance
from attnscope.reports.build import build

HOSTILE = {
    1: "<script>alert('token')</script>",
    2: "</script><img src=x onerror=alert(1)>",
    3: "[bold red]markup[/bold red]",
    4: "a & b $x^2$ <b>bold</b>",
    5: "\n\t\x1b[31m\u202eright to left",
    6: "x" * 300,
    7: " the",
}
HOSTILE_MODEL = "lab/<i>pocket</i> & $x$"

PLANTED = {
    "previous_token": {(1, 2): 0.94},
    "duplicate_token": {(2, 5): 0.62},
    "induction": {(3, 1): 0.95, (4, 6): 0.88},
    "retrieval": {(5, 0): 0.66, (5, 3): 0.55, (6, 7): 0.21},
    "local_mass": {(0, 0): 0.97, (0, 3): 0.91, (2, 1): 0.86, (0, 6): 0.83},
    "positional_share": {(0, 1): 0.93, (0, 0): 0.9, (1, 7): 0.84},
}
N_PROMPTS = 24


def fake_info(layers: int = 8, heads: int = 8, kv_heads: int = 2, model_id: str = HOSTILE_MODEL) -> ModelInfo:
    return ModelInfo(
        model_id=model_id,
        architecture="LlamaForCausalLM",
        backend="hf",
        n_layers=layers,
        attention_layers=tuple(range(layers)),
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=32,
        d_model=256,
        vocab_size=8192,
        context_length=8192,
        bos_token_id=0,
        n_parameters=8_012_544,
    )


def fake_statistics(info: ModelInfo, seed: int = 0) -> dict[str, xr.Dataset]:
    rng = np.random.default_rng(seed)
    layers, heads = len(info.attention_layers), info.n_heads
    depth = np.linspace(0, 1, layers)[:, None]
    sink = np.clip(
        rng.beta(2, 4, (layers, heads)) * 0.5 + 0.75 * (depth > 0.2) * rng.beta(3, 1.6, (layers, heads)), 0, 0.97
    )
    for planted in PLANTED.values():
        for head in planted:
            sink[head] *= 0.25
    plain = {
        "first_token_mass": sink * 0.93,
        "sink_mass": sink,
        "received_max": np.clip(sink * 1.02 + 0.02, 0, 1),
        "local_mass": (1 - sink) * rng.beta(2, 3, (layers, heads)),
        "mean_distance": 400 * sink + 60 * rng.random((layers, heads)),
        "entropy": 3.5 * (1 - sink) + 0.2,
        "entropy_normalized": 0.7 * (1 - sink) + 0.03,
        "max_prob": np.clip(sink + 0.1 * rng.random((layers, heads)), 0, 1),
        "value_norm_ratio": 0.9 - 0.8 * sink,
        "value_drain": 0.8 - 0.75 * sink,
        "previous_token": 0.3 * rng.beta(1.2, 6, (layers, heads)),
        "duplicate_token": 0.2 * rng.beta(1.1, 8, (layers, heads)),
        "induction": 0.25 * rng.beta(1.1, 8, (layers, heads)),
        "echo": 0.3 * rng.beta(1.1, 8, (layers, heads)),
        "retrieval": 0.06 * rng.beta(1, 8, (layers, heads)),
    }
    positional = np.clip(0.55 * rng.random((layers, heads)), 0, 1)
    for score, planted in PLANTED.items():
        for head, value in planted.items():
            (positional if score == "positional_share" else plain[score])[head] = value

    def per_prompt(*names: str) -> list[tuple[Variable, np.ndarray]]:
        found = []
        for name in names:
            mean = plain[name]
            noise = 1 + 0.08 * rng.standard_normal((N_PROMPTS, layers, heads))
            values = mean * noise
            if name not in ("mean_distance", "entropy", "value_norm_ratio", "value_drain"):
                values = np.clip(values, 0, 1)
            units = {"mean_distance": "token", "entropy": "nat"}.get(name, "1")
            found.append((Variable(name, ("prompt", "layer", "head"), units, name), values))
        return found

    text = statistics.dataset(
        info,
        [
            *per_prompt("first_token_mass", "sink_mass", "received_max", "local_mass", "mean_distance", "entropy"),
            *per_prompt("entropy_normalized", "max_prob", "value_norm_ratio", "value_drain"),
            (Variable("positional_share", ("layer", "head"), "1", "positional"), positional),
            *_profiles(info, sink, plain["local_mass"], rng),
            *_sinks(info, rng),
            *_residual(info, rng),
        ],
        coords={"site": ["block_input", "block_output"], "distance_bin": [0, *(2**i for i in range(10))]},
        attrs={"prompts": N_PROMPTS, "prompt_set": "text"},
    )
    rate = 100 * (sink[None] > np.array([0.35, 0.45, 0.55])[:, None, None]).astype(float)
    short = statistics.dataset(
        info,
        [
            (Variable("sink_rate", ("length", "layer", "head"), "percent", "sink rate"), rate),
            (Variable("sink_rate_prompts", ("length",), "prompt", "prompts"), np.array([100.0, 100.0, 24.0])),
        ],
        coords={"length": [64, 128, 512]},
        attrs={"prompts": 100, "prompt_set": "short"},
    )
    return {
        "text": text,
        "short": short,
        "repeats": statistics.dataset(info, per_prompt("previous_token", "duplicate_token", "induction")),
        "echoes": statistics.dataset(info, per_prompt("echo")),
        "needle": statistics.dataset(info, per_prompt("retrieval")),
    }


def _profiles(info, sink, local, rng):
    layers, heads = sink.shape
    near = np.exp(-np.arange(11) / (1.2 + 3 * rng.random((layers, heads, 1))))
    far = np.exp(-((np.arange(11) - 8.5) ** 2) / 3)
    mass = near / near.sum(-1, keepdims=True) * (1 - sink[..., None]) + far / far.sum() * sink[..., None]
    received = np.zeros((layers, heads, 48))
    received[..., 0] = sink
    received[..., 1:] = (1 - sink[..., None]) * 0.05 * rng.random((layers, heads, 47))
    return [
        (Variable("mass_by_distance", ("layer", "head", "distance_bin"), "1", "mass by distance"), mass),
        (Variable("received_mass", ("layer", "head", "position"), "1", "received"), received),
    ]


def _sinks(info, rng):
    layers = len(info.attention_layers)
    position, token, received = (np.full((N_PROMPTS, layers, 8), np.nan) for _ in range(3))
    for prompt in range(N_PROMPTS):
        for layer in range(1, layers):
            position[prompt, layer, 0], token[prompt, layer, 0], received[prompt, layer, 0] = 0, 0, 0.4 + 0.04 * layer
            if layer > 3 and prompt % 3 == 0:
                position[prompt, layer, 1] = 5 + prompt
                token[prompt, layer, 1] = 1 + prompt % 7
                received[prompt, layer, 1] = 0.12 + 0.05 * rng.random()
    dims = ("prompt", "layer", "rank")
    return [
        (Variable("sink_position", dims, "token", "position"), position),
        (Variable("sink_token", dims, "id", "token"), token),
        (Variable("sink_received", dims, "1", "received"), received),
    ]


def _residual(info, rng):
    blocks = np.arange(info.n_layers)
    first = np.where(blocks < 2, 5.6 + blocks, 53.0)
    others = 4.0 + 1.6 * blocks
    sites = np.stack([np.stack([np.r_[5.0, first[:-1]], first]), np.stack([np.r_[3.8, others[:-1]], others])])
    noisy = sites[:, None] * (1 + 0.02 * rng.standard_normal((2, N_PROMPTS, 2, info.n_layers)))
    size = np.abs(rng.normal(1.8, 0.4, (info.n_layers, info.d_model)))
    size[:, 117], size[:, 42], size[:, 201] = 26.0, 13.5, 9.8
    dims = ("prompt", "site", "block")
    return [
        (Variable("residual_norm_first", dims, "1", "norm of the first token"), noisy[0]),
        (Variable("residual_norm_others", dims, "1", "norm of the others"), noisy[1]),
        (Variable("residual_mean_abs", ("block", "dimension"), "1", "mean |x|"), size),
    ]


def _measured(value: float, low: float, high: float, prompt_set: str = "repeats") -> Measured:
    return Measured(value=value, n=64, units="1", prompt_set=prompt_set, interval=Interval(low=low, high=high))


CHECKS = (
    CausalCheck(
        label="induction",
        metric="accuracy on the second copy of random tokens",
        heads=("L3H1", "L4H6"),
        ablation="mean",
        baseline=_measured(0.97, 0.96, 0.98),
        ablated=_measured(0.21, 0.17, 0.25),
        random_control=_measured(0.95, 0.93, 0.97),
        n_random_draws=8,
        control="as many other heads of the same layers, drawn at random",
    ),
    CausalCheck(
        label="retrieval",
        metric="share of needles found",
        heads=("L5H0", "L5H3", "L6H7"),
        ablation="mean",
        baseline=_measured(1.0, 0.97, 1.0, "needle"),
        ablated=_measured(0.08, 0.03, 0.14, "needle"),
        random_control=_measured(0.94, 0.88, 0.98, "needle"),
        n_random_draws=8,
        control="as many other heads of the same layers, drawn at random",
    ),
)

MISSING = {
    "copying": "the OV circuit was not measured",
    "importance": "single-head ablations were not asked for",
    "recall_effect": "no recall facts: <b>the tokenizer splits them</b>",
    "reasoning_effect": "single-head ablations were not asked for",
}


def fake_provenance() -> Provenance:
    names = ("text", "short", "repeats", "echoes", "needle")
    sets = tuple(
        PromptSet(
            name=name,
            n_prompts=100 if name == "short" else N_PROMPTS,
            n_tokens=24_576,
            max_length=1024,
            fingerprint="9f2c" * 16,
            parameters={"seed": 0, "length": 1024},
        )
        for name in names
    )
    return Provenance(
        attnscope_version="0.1.0",
        created="2026-01-31T12:00:00Z",
        command="attnscope report --out runs/pocket",
        seed=0,
        implementation="tiled",
        libraries={"torch": "2.11.0", "transformers": "5.17.0"},
        prompt_sets=sets,
        read_sites={"q, k": "after RoPE", "residual": "block input and output"},
        bos_policy="BOS <s> before every prompt",
        notes=("A note with <script>alert('note')</script> in it.",),
    )


@lru_cache(maxsize=4)
def fake_report(layers: int = 8, heads: int = 8, kv_heads: int = 2) -> tuple[HeadReport, dict[str, xr.Dataset]]:
    info = fake_info(layers, heads, kv_heads)
    stats = fake_statistics(info)
    report = build(
        info,
        stats,
        fake_provenance(),
        decode_token=lambda token: HOSTILE.get(token, "<s>"),
        causal_checks=CHECKS,
        missing=MISSING,
    )
    return report, stats
