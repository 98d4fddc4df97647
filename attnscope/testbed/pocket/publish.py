"""Train and lay out a model folder that `attnscope.load` takes, with its figures beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import evaluate
from .config import Recipe
from .train import train


def train_and_publish(recipe: Recipe, corpus: Path, out: Path, device: str, seconds: float, seed: int) -> Path:
    """Train (or go on training) and return the model's folder: weights, tokenizer and `figures.json`.

    Args:
        recipe: sizes, mixture and optimiser.
        corpus: English text, .txt or .txt.xz.
        out: folder of checkpoints; the model goes into `out/model`.
        device: `cpu` or `cuda`; on the CPU nothing is compiled and only a few answers are checked.
        seconds: training time in all, over all calls.
        seed: of weights and data.

    Raises:
        AttnscopeError: the budget is not positive.
    """
    cuda = device.startswith("cuda")
    state = train(
        recipe, corpus, out, device, seconds=seconds, seed=seed, compile_layers=cuda, workers=4 if cuda else 1
    )
    folder = out / "model"
    for file in (out / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    model, tokenizer = evaluate.load(folder, device)
    if cuda:
        found = evaluate.figures(model, tokenizer)
    else:
        found = evaluate.accuracies(model.float(), tokenizer, 40, (512,), 5)
    evaluate.write(folder, {**found, "training": state})
    return folder
