"""The model card: every figure in words a reader can check, written from the figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnscope.testbed.pocket.config import Recipe
from attnscope.testbed.pocket.evaluate import LENGTHS, bars

_HEAD = """---
license: apache-2.0
language: en
---
# The pocket model

A Llama of {millions:.1f} million parameters ({layers} layers, {heads} query heads over {kv_heads} KV heads of 64
dimensions, hidden size {hidden}, RoPE θ {theta:.0f}, {context} positions, tied embeddings, bf16), really trained so
that its heads have something to say: attention sinks, previous-token, induction and retrieval heads, facts stored in
the weights, and puzzles solved from the prompt. It is attnscope's embedded default and is no use as a language model.

## Data
- English prose: 137 million characters of about 380 Project Gutenberg books (US public domain). Not shipped.
- Generated text, all of it from `attnscope/tasks/_world.py`: 1,600 facts (400 invented people × 4 relations, 4
  wordings), three kinds of puzzle, needles in prose, and random tokens repeated once.
- Held out: a stable hash keeps one wording of every fact, one in ten puzzle combinations (people and objects) and one
  in ten needle keys × wordings out of training. A look-up puzzle is answered with the thing and then its place
  ("key from Rome"): the second look-up starts from the first one's result.
- `heldout.txt`: prose from novels of ELTeC-eng (public domain texts), never trained on. Each of these
  novels shares at most 30% of its 8-grams with the training corpus.
- The weights are under the project's licence; the texts they learned from are in the public domain.

BOS (`<s>`, id 0) stands at position 0 of every training row and nowhere else; `</s>` (id 1) ends documents.

## Training
{steps:,} steps, {tokens:.0f} million tokens, {minutes:.1f} minutes of training time on one NVIDIA H200 (compilation and
preparation not counted), seed {seed}. {history}

## Promises, measured on held-out items with greedy decoding
"""


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(r) + " |" for r in lines) + "\n"


def _heads(found: dict[str, float], least: float) -> str:
    return ", ".join(f"{h} {v:.2f}" for h, v in found.items() if v >= least) or "none"


def card(f: dict[str, Any], r: Recipe, *, seed: int, history: str) -> str:
    """The card's text."""
    state = f["training"]
    text = _HEAD.format(
        millions=f["parameters"] / 1e6, layers=r.layers, heads=r.heads, kv_heads=r.kv_heads, hidden=r.hidden,
        theta=r.rope_theta, context=r.context, steps=state["step"], tokens=state["tokens"] / 1e6,
        minutes=state["seconds"] / 60, seed=seed, history=history,
    )  # fmt: skip
    text += _table(
        [(k, f"{v:g}", "kept" if ok else "**missed**") for k, (v, ok) in bars(f).items()],
        ("promise", "figure", ""),
    )
    text += f"\nRecall in a trained wording: {f['recall_trained_wording']:g}. Reasoning by kind and steps: "
    text += ", ".join(
        f"{k.removeprefix('reasoning_').replace('_', ' ')} {v:g}" for k, v in f.items() if k.startswith("reasoning_")
    )
    text += ".\n\n" + _table(
        [
            (str(n), f"{f[f'needle_code_{n}']:g}", f"{f[f'needle_word_{n}']:g}")
            for n in LENGTHS
            if f"needle_code_{n}" in f
        ],
        ("needle: tokens, answer included", "code", "word"),
    )
    text += f"""
Held-out English (`heldout.txt`): {f["heldout_loss_1024"]} nats a token in pieces of 1,024, {f["heldout_loss_8192"]} in
pieces of 8,192; {f["heldout_bits_per_character"]} bits a character.

## Sinks
Sink rate (ε = 0.3, strict, 100 held-out sequences, BOS first, in percent of heads): """
    text += ", ".join(
        f"{v:g} at T = {k.removeprefix('sink_rate_')}" for k, v in f.items() if k.startswith("sink_rate_")
    )
    masses = ", ".join(
        f"{sum(map(sum, v)) / (len(v) * len(v[0])):.2f} at T = {k.removeprefix('first_token_mass_')}"
        for k, v in f.items()
        if k.startswith("first_token_mass_")
    )
    text += f""". The rate falls with length: the promise holds at T = 64
only, and at T = 4096 no head gives BOS 30% of its mean attention. Mean attention on BOS over all heads: {masses}.

Primary sink: block {f["sink_block"]} (0-based) writes it; there the MLP adds a vector of norm
{f["sink_block_mlp_write"]} to the first token, attention one of {f["sink_block_attention_write"]}. Norms at the
blocks' outputs, first token: {f["first_token_norm"]}; median of the others: {f["other_token_norm"]}.

Residual sink: dimension {f["residual_sink_dimensions"][0]}, mean |x| {f["residual_sink_sizes"][0]} over tokens (without
the first) and block outputs, {f["residual_sink_ratio"]} times the median dimension's; next are dimensions
{f["residual_sink_dimensions"][1:]} with {f["residual_sink_sizes"][1:]}.

## Heads (layer and head from 0; random tokens doubled behind BOS; needles of 512 to 4,096 tokens)
- induction: {_heads(f["induction_heads"], 0.5)}
- previous token: {_heads(f["previous_token_heads"], 0.5)}
- duplicate token: {_heads(f["duplicate_token_heads"], 0.5)}
- retrieval: {_heads(f["retrieval_heads"], 0.4)}

All figures: `figures.json`. Code: `attnscope/testbed/pocket`.
"""
    return text


def write_card(folder: Path, f: dict[str, Any], r: Recipe, *, seed: int, history: str) -> None:
    """Write README.md."""
    (folder / "README.md").write_text(card(f, r, seed=seed, history=history), encoding="utf-8")
