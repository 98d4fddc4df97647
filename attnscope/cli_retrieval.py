"""The command `attnscope retrieval`: which heads retrieve, and what is lost without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, numbers, out, resumable, run_name, written


def retrieval(
    model: options.Model = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>-retrieval")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(help="Tokens of needle prompts, as 1024,4096.", show_default="512,1024,2048 within the context"),
    ] = None,
    depths: Annotated[str, typer.Option(help="Depths of needles, 0 (start) to 1 (end).")] = "0,0.25,0.5,0.75,1",
    repeats: Annotated[int, typer.Option(min=1, help="Needles a length and depth.")] = 2,
    kind: Annotated[str, typer.Option(help="Needles: code, word or key_value.")] = "code",
    others: Annotated[int, typer.Option(min=0, help="Other needles in each prompt.")] = 0,
    haystack: Annotated[str | None, typer.Option(help="Your own text: .txt, .jsonl, .parquet or a dataset.")] = None,
    needles: Annotated[
        str | None, typer.Option(help="Your own needles: .jsonl with needle, answer and question.")
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts of each measure without needles.", show_default="16 passages, 4 others"),
    ] = None,
    decode_steps: Annotated[int, typer.Option(min=0, help="Tokens generated a needle; 0 scores no decoding.")] = 16,
    ablate: Annotated[bool, typer.Option("--ablate/--no-ablate", help="Measure accuracy without heads.")] = True,
    draws: Annotated[int, typer.Option(min=1, help="Random controls of every ablation.")] = 5,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    tokenizer: options.Tokenizer = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Find retrieval heads by every published measure, ablate them beside random others, and write a report."""
    folder = out_ if out_ is not None else Path("runs") / f"{run_name(model, None, False)}-retrieval"
    with exit_codes(resumable(folder)):
        from .core.retrieval_run import check_retrieval_run
        from .models._loading import load
        from .present.retrieval_text import retrieval_summary
        from .progress import announce_retrieval, tracker
        from .retrieval_plan import RetrievalPlan

        check_retrieval_run(folder)
        fewer = {} if prompts is None else {"passages": prompts, "echoes": prompts, "patterns": prompts}
        plan = RetrievalPlan(
            lengths=None if lengths is None else tuple(numbers("--lengths", lengths, int)),
            depths=tuple(numbers("--depths", depths, float)),
            repeats=repeats,
            kind=kind,  # type: ignore[arg-type]
            others=others,
            haystack=haystack,
            needles=needles,
            decode_steps=decode_steps,
            causal=ablate,
            draws=draws,
            seed=seed,
            **fewer,  # type: ignore[arg-type]
        )
        loading: dict[str, Any] = {
            "dtype": dtype,
            "device": device,
            "revision": revision,
            "tokenizer": tokenizer,
            "trust_remote_code": trust_remote_code,
        }
        scope = load(model, **loading)
        announce_retrieval(err, scope, plan)
        from .retrieval_workflow import retrieval_report

        with tracker(err) as track:
            finished = retrieval_report(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(retrieval_summary(finished))
        written("report", folder / "retrieval.html")
