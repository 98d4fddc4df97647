"""The command `attnscope verify-paper`: a model's measurement beside published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, out, written
from .core.published import CLAIMS


def verify_paper(
    claim: Annotated[str, typer.Argument(help=f"{', '.join(f'{k} ({v})' for k, v in CLAIMS.items())}.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or hub id; nothing means the embedded model.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Write the comparison there, as JSON.")] = None,
    text: options.Text = None,
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens a prompt.", show_default="64 for sink-rate, else 512")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Prompts at most.", show_default="100 for sink-rate, else 16")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer's folder or hub id.", show_default="the model's")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Measure what a paper claims of a model, and say which of its numbers come back."""
    with exit_codes():
        from .models._loading import load
        from .present.verification_text import verification_text
        from .progress import tracker
        from .verify_measures import VerifyPlan
        from .verify_paper import check_claim, check_comparison, cost, write_comparison
        from .verify_paper import verify_paper as run

        check_claim(claim)
        if out_ is not None:
            check_comparison(out_)
        plan = VerifyPlan(text, prompts, context, seed, implementation, batch_tokens)
        scope = load(
            model,
            dtype=dtype,
            device=device,
            revision=revision,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
            seed=seed,
        )
        tokens, multiplications = cost(claim, plan, scope.info)
        err.print(
            f"{claim} of {scope.info.model_id} on {scope.info.device} ({scope.info.dtype}): at most {tokens:,} tokens, "
            f"about {multiplications / 1e12:.2f} trillion multiply-adds",
            highlight=False,
            markup=False,
        )
        with tracker(err) as track:
            command = command_line()
            finished = run(claim, scope, plan, track=track, command=command)
        out.print(verification_text(finished))
        if out_ is not None:
            write_comparison(out_, finished)
            written("comparison", out_)
