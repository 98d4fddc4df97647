"""The command `attnscope frequency`: the RoPE chunks that find each head's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, numbers, out, resumable, run_name, written


def frequency(
    model: options.Model = None,
    config: options.Config = None,
    random_weights: options.RandomWeights = False,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>-frequency")
    ] = None,
    text: options.Text = None,
    context: Annotated[int | None, typer.Option(min=2, help="Tokens a prompt.", show_default="2048")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Text prompts to rank chunks on, and as many to try.")] = 8,
    queries: Annotated[int, typer.Option(min=1, help="Sampled queries a prompt.")] = 8,
    budgets: Annotated[
        str | None, typer.Option(help="Keys a query, as 32,64.", show_default="1/64 to 1/8 of the context")
    ] = None,
    chunks: Annotated[str | None, typer.Option(help="Numbers of chunks.", show_default="1/8 to 1/2 of them")] = None,
    pairing: Annotated[str, typer.Option(help="model: what RoPE turns; adjacent: (2i, 2i + 1).")] = "model",
    tasks: Annotated[
        bool, typer.Option("--tasks/--no-tasks", help="Compare with needles, recall and reasoning.")
    ] = True,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Find the RoPE frequency chunks that pick each head's keys, and how well they do it, and write a report."""
    folder = out_ if out_ is not None else Path("runs") / f"{run_name(model, config, random_weights)}-frequency"
    with exit_codes(resumable(folder)):
        from .core.frequency_run import check_frequency_run
        from .frequency_plan import TASKS, FrequencyPlan, frequency_cost
        from .models._loading import load
        from .present.frequency_text import frequency_summary
        from .progress import tracker

        check_frequency_run(folder)
        plan = FrequencyPlan(
            text=text,
            context=context,
            prompts=prompts,
            queries=queries,
            budgets=None if budgets is None else tuple(numbers("--budgets", budgets, int)),
            sizes=None if chunks is None else tuple(numbers("--chunks", chunks, int)),
            pairing=pairing,  # type: ignore[arg-type]
            tasks=TASKS if tasks else ("text",),
            seed=seed,
        )
        loading: dict[str, Any] = {
            "config": config,
            "dtype": dtype,
            "device": device,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "seed": seed,
        }
        scope = load(model, random_weights=random_weights, **loading)
        err.print(frequency_cost(plan, scope.info, scope.tokenizer is not None), highlight=False, markup=False)
        from .frequency_workflow import frequency_report

        with tracker(err) as track:
            finished = frequency_report(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(frequency_summary(finished))
        written("report", folder / "frequency.html")
