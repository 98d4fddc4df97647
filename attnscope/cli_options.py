"""Options that several commands share, each with its type and its help, and how the command line ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from .core.errors import AttnscopeError

_Number = TypeVar("_Number", int, float)
out = Console()
err = Console(stderr=True)

USER_ERROR, INTERRUPTED = 2, 130
CONFIG_HELP = "In place of a model: a transformers config.json, or gpt2, llama-3.1-8b, qwen3-0.6b, qwen3-32b."

Model = Annotated[str | None, typer.Argument(help="Folder or hub id; nothing means the embedded model.")]
Config = Annotated[str | None, typer.Option(help=CONFIG_HELP)]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Make random weights; read none, not even a folder's own.")
]
Text = Annotated[str | None, typer.Option(help=".txt, .jsonl, .parquet or a Hugging Face dataset.")]
Context = Annotated[int | None, typer.Option(min=2, help="Tokens a text prompt.", show_default="512")]
Prompts = Annotated[int, typer.Option(min=1, help="Text prompts at most.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if any")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Tokenizer = Annotated[str | None, typer.Option(help="Tokenizer's folder or hub id.", show_default="the model's")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code.")]
Implementation = Annotated[str, typer.Option(help="Kernels: auto, reference, tiled, triton.")]
BatchTokens = Annotated[int, typer.Option(min=1, help="Padded tokens a batch at most.")]
Seed = Annotated[int, typer.Option(help="Of random weights, prompts and controls.")]


@contextmanager
def exit_codes(on_interrupt: str = "Nothing was written.") -> Iterator[None]:
    """Turn our errors into a message and exit code 2, and Ctrl-C into exit code 130."""
    try:
        yield
    except AttnscopeError as error:
        err.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        err.print(f"interrupted. {on_interrupt}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def resumable(folder: Path) -> str:
    """Return what to say after Ctrl-C of a command that goes on where it stopped."""
    return f"Repeat the command to go on where it stopped ({folder}.partial); {folder} is as it was."


def command_line() -> str:
    """Return this command, for the provenance."""
    return shlex.join(["attnscope", *sys.argv[1:]])


def written(what: str, path: Path) -> None:
    """Say where a result is."""
    out.print(f"{what}: {path.absolute()}", soft_wrap=True, highlight=False, markup=False)


def numbers(option: str, text: str, kind: type[_Number]) -> list[_Number]:
    """Read numbers with commas between them.

    Raises:
        TaskError: something else stands there.

    Example:
        >>> numbers("--lengths", "1024, 4096", int)
        [1024, 4096]
    """
    from .core.errors import TaskError

    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise TaskError(option, found=repr(text), expected=f"{what} with commas between them") from None


def run_name(model: str | None, config: str | None, random_weights: bool) -> str:
    """Name a run so that random weights never replace a model's own run.

    Example:
        >>> run_name(None, None, False), run_name(None, "shapes/gpt2.json", True)
        ('pocket', 'gpt2-random')
    """
    path = Path(model or config or "pocket").absolute()
    name = path.parent.name if path.name == "config.json" else path.name.removesuffix(".json")
    return f"{name}-random" if random_weights else name
