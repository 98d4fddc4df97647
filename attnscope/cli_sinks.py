"""The command `attnscope sinks`: attention sinks and residual sinks of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, out, resumable, run_name, written


def sinks(
    model: options.Model = None,
    config: options.Config = None,
    random_weights: options.RandomWeights = False,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>-sinks")
    ] = None,
    text: options.Text = None,
    context: options.Context = None,
    prompts: options.Prompts = 16,
    mode: Annotated[str, typer.Option(help="relative: lifetimes as a share of the layers; paper: its numbers.")] = (
        "relative"
    ),
    interventions: Annotated[
        bool, typer.Option("--interventions/--no-interventions", help="Test writes and dimensions by changing them.")
    ] = True,
    draws: Annotated[int, typer.Option(min=1, help="Random controls of every test.")] = 10,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Find attention sinks and residual sinks, who writes them and what happens without them, and write a report."""
    folder = out_ if out_ is not None else Path("runs") / f"{run_name(model, config, random_weights)}-sinks"
    with exit_codes(resumable(folder)):
        from .core.errors import TaskError
        from .core.sink_run import check_sink_run
        from .models._loading import load
        from .present.sink_text import sink_summary
        from .progress import announce_sinks, tracker

        if mode not in ("relative", "paper"):
            raise TaskError("mode of a sink report", found=repr(mode), expected="'relative' or 'paper'")
        check_sink_run(folder)
        from .sink_workflow import SinkPlan, sink_report

        plan = SinkPlan(text, context, prompts, mode, seed, draws, interventions)  # type: ignore[arg-type]
        loading: dict[str, Any] = {
            "config": config,
            "dtype": dtype,
            "device": device,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "seed": seed,
        }
        scope = load(model, random_weights=random_weights, **loading)
        announce_sinks(err, scope, plan)
        with tracker(err) as track:
            finished = sink_report(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(sink_summary(finished))
        written("report", folder / "sinks.html")
