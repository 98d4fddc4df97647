"""The command line: `attnscope report`, `sinks`, `retrieval`, `frequency`, `circuit`, `ablate`, `export` and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from . import cli_options as options
from .cli_ablate import ablate
from .cli_circuit import circuit
from .cli_formats import compare, export, import_
from .cli_frequency import frequency
from .cli_gates import gates
from .cli_options import USER_ERROR, command_line, err, exit_codes, out, resumable, run_name, written
from .cli_retrieval import retrieval
from .cli_sinks import sinks
from .cli_verify import verify_paper
from .cli_verify_circuits import verify_circuits
from .core.names import LABELS, SCORES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="What every attention head of a transformer does, and what happens when it stops.",
)
testbed = typer.Typer(no_args_is_help=True, help="Models whose heads are known.")
app.add_typer(testbed, name="testbed")
app.command("sinks")(sinks)
app.command("retrieval")(retrieval)
app.command("frequency")(frequency)
app.command("gates")(gates)
app.command("circuit")(circuit)
app.command("ablate")(ablate)
app.command("verify-paper")(verify_paper)
app.command("verify-circuits")(verify_circuits)
app.command("export")(export)
app.command("import")(import_)
app.command("compare")(compare)


def main() -> None:
    """Run the command line: exit code 0 done, 2 user error, 130 interrupted."""
    app()


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
    model: options.Model = None,
    config: options.Config = None,
    random_weights: options.RandomWeights = False,
    out_: Annotated[Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>")] = None,
    text: options.Text = None,
    context: options.Context = None,
    prompts: options.Prompts = 16,
    documents: Annotated[bool, typer.Option("--documents", help="One document a prompt, not packed.")] = False,
    truncate: Annotated[bool, typer.Option("--truncate", help="With --documents: cut long ones.")] = False,
    column: Annotated[str, typer.Option(help="Text column of .jsonl, .parquet and datasets.")] = "text",
    device: options.Device = None,
    device_map: Annotated[str | None, typer.Option(help="Spread over devices, for example auto.")] = None,
    dtype: options.Dtype = "auto",
    backend: Annotated[str, typer.Option(help="Model backend.")] = "hf",
    revision: options.Revision = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer's folder or hub id.", show_default="the model's")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    mode: Annotated[str, typer.Option(help="exact, or screen: sampled queries, exact sinks above 1%.")] = "exact",
    sinks: Annotated[
        bool | None, typer.Option("--sinks/--no-sinks", help="Add a sink report.", show_default="up to 4,096 tokens")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Share of KV heads that stay full in the decode plan.", show_default="by what heads need"),
    ] = None,
    retrieval: Annotated[bool, typer.Option("--retrieval/--no-retrieval", help="Add a retrieval report.")] = True,
    gates: Annotated[
        str | None, typer.Option(help="Train gates too: duo_attention, hardkuma or both with a comma; takes minutes.")
    ] = None,
    circuit_prompts: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Recall and reasoning prompts on which every head is ablated by itself; 0 for none.",
            show_default="24, on a CPU up to 200M parameters",
        ),
    ] = None,
    frequency: Annotated[bool, typer.Option("--frequency/--no-frequency", help="Add frequency chunks.")] = True,
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Say what every attention head does, and write a report (HTML, JSON, tables, statistics)."""
    folder = out_ if out_ is not None else Path("runs") / run_name(model, config, random_weights)
    with exit_codes(resumable(folder)):
        from .core.run_directory import check_writable
        from .models._loading import load, outline
        from .present.text import summary
        from .progress import announce, tracker
        from .report_plan import ReportPlan
        from .workflow import report as run

        check_writable(folder)
        plan = ReportPlan(
            text,
            context,
            prompts,
            documents,
            truncate,
            column,
            seed,
            mode=mode,  # type: ignore[arg-type]
            sinks=sinks,
            budget=budget,
            retrieval=retrieval,
            gates=() if gates is None else tuple(gates.split(",")),  # type: ignore[arg-type]
            frequency=frequency,
            circuit_prompts=circuit_prompts,
        )
        loading: dict[str, Any] = {
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
        early = outline(model, **loading) if random_weights else None
        if early is not None:
            announce(err, early, plan)
        scope = load(model, random_weights=random_weights, **loading)
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
                command=command_line(),
            )
        out.print(summary(finished))
        written("report", folder / "report.html")


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
    config: options.Config = None,
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
    device: Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="cuda if any")] = None,
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
