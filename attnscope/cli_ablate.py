"""The command `attnscope ablate`: chosen heads stop, and what a task loses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, out, written


def ablate(
    model: options.Model = None,
    heads: Annotated[str, typer.Option(help="Query heads, as L3H0,L3H2.")] = "",
    mode: Annotated[str, typer.Option(help="zero, mean, resample, uniform or static.")] = "zero",
    task: Annotated[str, typer.Option(help="Prompt set: needle, recall, reasoning, ioi, text, ….")] = "needle",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts at most.")] = 32,
    draws: Annotated[int, typer.Option(min=1, help="Random controls.")] = 5,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Also write the result there, as JSON.", show_default="nowhere")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    tokenizer: options.Tokenizer = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Stop chosen heads and measure what a task loses, beside random other heads of the same layers.

    Without --heads, the embedded model's first retrieval head stops.
    """
    with exit_codes():
        from .ablation_workflow import ablate as run
        from .ablation_workflow import read_heads
        from .core.errors import UnknownHeadError
        from .models._loading import load
        from .present.ablation_text import ablation_summary
        from .progress import tracker

        if not heads and model is not None:
            raise UnknownHeadError("--heads", found="nothing", expected="query heads, as --heads L3H0,L3H2")
        chosen = read_heads(heads or "L7H0")
        loading: dict[str, Any] = {
            "dtype": dtype,
            "device": device,
            "revision": revision,
            "tokenizer": tokenizer,
            "trust_remote_code": trust_remote_code,
        }
        scope = load(model, **loading)
        with tracker(err) as track:
            result = run(
                chosen,
                scope,
                mode=mode,  # type: ignore[arg-type]
                task=task,
                prompts=prompts,
                draws=draws,
                seed=seed,
                out=out_,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(ablation_summary(result))
        if out_ is not None:
            written("result", out_)
