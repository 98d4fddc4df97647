"""The command `attnscope verify-circuits`: published circuit experiments on a model, beside their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, out, written
from .core.published import CIRCUIT_CLAIMS


def verify_circuits(
    model: Annotated[
        str | None, typer.Argument(help="gpt2, gpt2-medium, or a folder; nothing means the embedded model.")
    ] = None,
    config: options.Config = None,
    random_weights: options.RandomWeights = False,
    claims: Annotated[
        str | None,
        typer.Option(
            help=f"With commas: {', '.join(f'{k} ({v})' for k, v in CIRCUIT_CLAIMS.items())}.",
            show_default="all, circuit-reuse with 24 layers alone",
        ),
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="Published name of the model, where its folder has another one: gpt2.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Folder for one JSON file a claim.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Pairs of each task.")] = 100,
    per_template: Annotated[int, typer.Option(min=1, help="Reference prompts of each IOI template.")] = 32,
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
    """Run published circuit experiments (IOI, MIB, greater-than, reuse), and say which numbers come back."""
    with exit_codes():
        from .core.errors import OutputError
        from .core.paths import data_path
        from .models._loading import load
        from .present.verification_text import verification_text
        from .progress import tracker
        from .verify_circuit_parts import CircuitChecks
        from .verify_circuits import check_circuit_claim
        from .verify_circuits import verify_circuits as run
        from .verify_paper import check_comparison, write_comparison

        chosen = None if claims is None else [check_circuit_claim(claim.strip()) for claim in claims.split(",")]
        if out_ is not None:
            if out_.exists() and not out_.is_dir():
                raise OutputError(f"output {out_}", found="a file", expected="a folder")
            for claim in chosen or CIRCUIT_CLAIMS:
                check_comparison(out_ / f"{claim}.json")
        plan = CircuitChecks(prompts, per_template, seed=seed, implementation=implementation, batch_tokens=batch_tokens)
        if random_weights and tokenizer is None and config is not None and not config.endswith(".json"):
            tokenizer = str(data_path("pocket"))  # a shape has none, and random weights know no words
        scope = load(
            model,
            config=config,
            random_weights=random_weights,
            dtype=dtype,
            device=device,
            revision=revision,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
            seed=seed,
        )
        with tracker(err) as track:
            finished = run(chosen, scope, plan, published_as=as_, track=track, command=command_line())
        for verification in finished:
            out.print(verification_text(verification))
            out.print()
            if out_ is not None:
                written("comparison", write_comparison(out_ / f"{verification.claim}.json", verification))
