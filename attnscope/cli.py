"""The command line: `attnscope report`, `heads`, `doctor`, `testbed`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import __version__
from .core.errors import AttnscopeError
from .core.names import LABELS, SCORES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="What every attention head of a transformer does, and what happens when it stops.",
)
testbed = typer.Typer(no_args_is_help=True, help="Models whose heads are known.")
app.add_typer(testbed, name="testbed")
out = Console()
err = Console(stderr=True)

USER_ERROR, INTERRUPTED = 2, 130
CONFIG_HELP = "In place of a model: a transformers config.json, or gpt2, llama-3.1-8b, qwen3-0.6b, qwen3-32b."


def main() -> None:
    """Run the command line: exit code 0 done, 2 user error, 130 interrupted."""
    app()


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


def _version(asked: bool) -> None:
    if asked:
        out.print(f"attnscope {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def report(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; nothing means the embedded model.")] = None,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Make random weights; read none, not even a folder's own.")
    ] = False,
    out_: Annotated[Path | None, typer.Option("--out", help="Run directory [default: runs/<model>].")] = None,
    text: Annotated[str | None, typer.Option(help=".txt, .jsonl, .parquet or a Hugging Face dataset.")] = None,
    context: Annotated[int | None, typer.Option(min=2, help="Tokens a text prompt [default: 512].")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Text prompts at most.")] = 16,
    documents: Annotated[bool, typer.Option("--documents", help="One document a prompt, not packed.")] = False,
    truncate: Annotated[bool, typer.Option("--truncate", help="With --documents: cut long ones.")] = False,
    column: Annotated[str, typer.Option(help="Text column of .jsonl, .parquet and datasets.")] = "text",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 [default: cuda if any].")] = None,
    device_map: Annotated[str | None, typer.Option(help="Spread over devices, for example auto.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    backend: Annotated[str, typer.Option(help="Model backend.")] = "hf",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer's folder or hub id [default: the model's].")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code.")] = False,
    implementation: Annotated[str, typer.Option(help="Kernels: auto, reference, tiled, triton.")] = "auto",
    mode: Annotated[str, typer.Option(help="exact, or screen: sampled queries, exact sinks above 1%.")] = "exact",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded tokens a batch at most.")] = 8192,
    seed: Annotated[int, typer.Option(help="Of random weights, prompts and controls.")] = 0,
) -> None:
    """Say what every attention head does, and write a report (HTML, JSON, tables, statistics)."""
    folder = out_ if out_ is not None else Path("runs") / _run_name(model, config, random_weights)
    resume = f"Repeat the command to go on where it stopped ({folder}.partial); {folder} is as it was."
    with exit_codes(resume):
        from .core.run_directory import check_writable
        from .models._loading import load, outline
        from .present.text import summary
        from .progress import announce, tracker
        from .report_plan import ReportPlan
        from .workflow import report as run

        check_writable(folder)
        plan = ReportPlan(text, context, prompts, documents, truncate, column, seed, mode=mode)  # type: ignore[arg-type]
        options: dict[str, Any] = {
            "config": config,
            "backend": backend,
            "dtype": dtype,
            "device": device,
            "device_map": device_map,
            "revision": revision,
            "tokenizer": tokenizer,
            "trust_remote_code": trust_remote_code,
            "seed": seed,
        }
        early = outline(model, **options) if random_weights else None
        if early is not None:
            announce(err, early, plan)
        scope = load(model, random_weights=random_weights, **options)
        if early is None:
            announce(err, scope, plan)
        with tracker(err) as track:
            finished = run(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=shlex.join(["attnscope", *sys.argv[1:]]),
            )
        out.print(summary(finished))
        out.print(f"report: {(folder / 'report.html').absolute()}", soft_wrap=True, highlight=False, markup=False)


def _run_name(model: str | None, config: str | None, random_weights: bool) -> str:
    """Name a run so that random weights never replace a model's own run."""
    path = Path(model or config or "pocket").absolute()
    name = path.parent.name if path.name == "config.json" else path.name.removesuffix(".json")
    return f"{name}-random" if random_weights else name


@app.command()
def heads(
    run: Annotated[Path, typer.Argument(help="Run directory made by 'attnscope report'.")],
    label: Annotated[str | None, typer.Option(help=f"Only heads with this label: {', '.join(LABELS)}.")] = None,
    sort: Annotated[str | None, typer.Option(help="Score to sort by, largest first.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
) -> None:
    """List the heads of a finished run."""
    with exit_codes():
        from .core.errors import UnknownNameError
        from .core.run_directory import open_run
        from .present.text import heads_table

        if sort is not None and sort not in SCORES:
            raise UnknownNameError(f"score {sort!r}", expected=f"one of {', '.join(SCORES)}")
        out.print(heads_table(open_run(run).report, label=label, sort=sort, top=top))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="Also say what this model would need.")] = None,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens a prompt.")] = None,
) -> None:
    """Say what is installed, which kernels and devices work, and what a model would need."""
    with exit_codes():
        from . import doctor as checks
        from .present.findings import findings_table

        groups = {"Libraries": checks.libraries(), "Devices": checks.devices(), "Kernels": checks.kernels()}
        if model is not None or config is not None:
            groups[f"Model {model or config}"] = checks.model_needs(model, context, config)
        for title, findings in groups.items():
            out.print(findings_table(title, [(f.what, f.works, f.detail) for f in findings]))
        if any(finding.works is False for findings in groups.values() for finding in findings):
            raise typer.Exit(USER_ERROR)


@testbed.command("train-pocket")
def train_pocket(
    corpus: Annotated[Path, typer.Argument(help="English text, .txt or .txt.xz.")],
    folder: Annotated[Path, typer.Argument(help="Where the model and its checkpoints go.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time.")] = 20.0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda [default: cuda if any].")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
) -> None:
    """Train the embedded model again from text; repeat the command to go on after an interruption."""
    with exit_codes(f"Repeat the command to go on from the last checkpoint in {folder}."):
        from .core.errors import TaskError
        from .models._options import read_device
        from .testbed.pocket import publish
        from .testbed.pocket.config import Recipe

        if not corpus.is_file():
            raise TaskError(f"corpus {corpus}", found="no such file", expected="English text, .txt or .txt.xz")
        chosen = read_device(device)
        recipe = Recipe() if chosen.type == "cuda" else Recipe.for_cpu()
        out.print(f"model: {publish.train_and_publish(recipe, corpus, folder, str(chosen), 60 * minutes, seed)}")


@testbed.command("plant")
def plant(
    folder: Annotated[Path, typer.Argument(help="Where the model goes.")],
    seed: Annotated[int, typer.Option(help="Which random planting.")] = 0,
) -> None:
    """Write a model whose heads are known by construction, and print what each of them is."""
    with exit_codes():
        from .core.run_directory import check_writable
        from .testbed.planted import expected_labels, random_spec, save

        spec = random_spec(seed)
        save(spec, check_writable(folder))
        for head, labels in sorted(expected_labels(spec).items()):
            out.print(f"{head} {', '.join(sorted(labels))}", highlight=False)
