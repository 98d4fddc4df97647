"""The command `attnscope circuit`: which heads, blocks and neurons serve which task, and what is lost without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, numbers, out, resumable, run_name, written


def circuit(
    model: options.Model = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>-circuits")
    ] = None,
    task: Annotated[
        str, typer.Option(help="One task or two: recall, reasoning, ioi, colored_objects, greater_than.")
    ] = "recall,reasoning",
    pairs: Annotated[
        str | None, typer.Option(help="Your own pairs: .jsonl with prompt, corrupt, answer and wrong.")
    ] = None,
    source: Annotated[str, typer.Option(help="Of recall and reasoning: pocket, or public (plain English).")] = "pocket",
    method: Annotated[str, typer.Option(help="Heads: exact, or atp (screened, the best verified).")] = "exact",
    level: Annotated[str, typer.Option(help="head, layer, neuron, or several with commas.")] = "head,layer,neuron",
    mode: Annotated[str, typer.Option(help="Ablation: mean, zero or resample.")] = "mean",
    prompts: Annotated[int, typer.Option(min=8, help="Pairs a task; half choose circuits, half test them.")] = 64,
    sizes: Annotated[str, typer.Option(help="Units of the circuits.")] = "1,2,4,8",
    verify: Annotated[int, typer.Option(min=1, help="Units a task measured exactly after a screen.")] = 32,
    draws: Annotated[int, typer.Option(min=1, help="Random controls of every circuit.")] = 5,
    edges: Annotated[bool, typer.Option("--edges/--no-edges", help="Score edges between heads and MLPs.")] = True,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    tokenizer: options.Tokenizer = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Find which heads, blocks and neurons serve which task, ablate them together, and write a report."""
    folder = out_ if out_ is not None else Path("runs") / f"{run_name(model, None, False)}-circuits"
    with exit_codes(resumable(folder)):
        from .circuit_plan import CircuitPlan
        from .core.circuit_run import check_circuit_run
        from .models._loading import load
        from .present.circuit_text import circuit_summary
        from .progress import announce_circuits, tracker

        check_circuit_run(folder)
        plan = CircuitPlan(
            tasks=tuple(task.split(",")),
            prompts=prompts,
            source=source,  # type: ignore[arg-type]
            pairs=pairs,
            levels=tuple(level.split(",")),  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            verify=verify,
            ablation=mode,  # type: ignore[arg-type]
            sizes=tuple(numbers("--sizes", sizes, int)),
            draws=draws,
            edges=edges,
            seed=seed,
        )
        loading: dict[str, Any] = {
            "dtype": dtype,
            "device": device,
            "revision": revision,
            "tokenizer": tokenizer,
            "trust_remote_code": trust_remote_code,
        }
        scope = load(model, **loading)
        announce_circuits(err, scope, plan)
        from .circuit_workflow import circuit_report

        with tracker(err) as track:
            finished = circuit_report(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(circuit_summary(finished))
        written("report", folder / "circuits.html")
