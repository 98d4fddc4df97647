"""The command `attnscope gates`: trained gates of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_options as options
from .cli_options import command_line, err, exit_codes, out, resumable, run_name, written


def gates(
    model: options.Model = None,
    config: options.Config = None,
    random_weights: options.RandomWeights = False,
    method: Annotated[str, typer.Option(help="duo_attention or hardkuma.")] = "duo_attention",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", show_default="200 or 300")] = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<model>-gates")
    ] = None,
    context: Annotated[int | None, typer.Option(min=2, help="Tokens a training prompt.", show_default="512")] = None,
    needles: Annotated[int, typer.Option(min=1, help="Codes to remember in each.")] = 5,
    prompts: Annotated[int, typer.Option(min=1, help="Different training prompts.")] = 24,
    sink_tokens: Annotated[int, typer.Option(min=0, help="First tokens that a streaming head sees.")] = 4,
    recent_tokens: Annotated[
        int | None, typer.Option(min=1, help="Last tokens that it sees.", show_default="an eighth of a prompt")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.", show_default="0.02 or 0.01")] = None,
    target: Annotated[float, typer.Option(help="hardkuma: share of gates above 0.")] = 0.0833,
    constraint: Annotated[float | None, typer.Option(help="hardkuma: first weight of that.", show_default="2")] = None,
    per: Annotated[str, typer.Option(help="What has a gate: kv_head or query_head.")] = "kv_head",
    check: Annotated[int, typer.Option(min=0, help="Held-out needles for the check; 0 for none.")] = 10,
    draws: Annotated[int, typer.Option(min=0, help="Random choices of heads beside the check.")] = 5,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    implementation: options.Implementation = "auto",
    batch_tokens: options.BatchTokens = 8192,
    seed: options.Seed = 0,
) -> None:
    """Train gates that say which KV heads need the whole context; the model's weights stay as they are."""
    folder = out_ if out_ is not None else Path("runs") / f"{run_name(model, config, random_weights)}-gates"
    with exit_codes(resumable(folder)):
        from .core.gate_report import check_gate_run
        from .gate_plan import GatePlan, cost
        from .gate_workflow import train_run
        from .models._loading import load
        from .present.gates_text import gates_summary
        from .progress import tracker

        check_gate_run(folder)
        plan = GatePlan(
            method=method,  # type: ignore[arg-type]
            steps=steps,
            context=context,
            needles=needles,
            prompts=prompts,
            sink_tokens=sink_tokens,
            recent_tokens=recent_tokens,
            learning_rate=learning_rate,
            target=target,
            constraint=constraint,
            per=per,  # type: ignore[arg-type]
            checked=check,
            draws=draws,
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
        chosen = plan.settings(scope.info)
        seen, multiplications = cost(scope.info, plan)
        err.print(
            f"{scope.info.model_id}: {len(scope.info.attention_layers)} layers × {scope.info.n_kv_heads} KV heads on "
            f"{scope.info.device} ({scope.info.dtype}); {method}, {chosen.steps} steps of {plan.length(scope.info):,} "
            f"tokens, in all {seen:,} tokens, about {multiplications / 1e12:.2f} trillion multiply-adds",
            highlight=False,
            markup=False,
        )
        with tracker(err) as track:
            report, _ = train_run(
                scope,
                plan,
                out=folder,
                implementation=implementation,
                batch_tokens=batch_tokens,
                track=track,
                command=command_line(),
            )
        out.print(gates_summary(report))
        written("gates", folder / "gates.json")
