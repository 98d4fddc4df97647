"""Which specifications can be built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.core.errors import ModelError, UnknownHeadError
from attnscope.core.ids import HeadId

from ._circuit_rules import check_circuits

if TYPE_CHECKING:
    from .spec import PlantedSink, PlantedSpec

MIN_SINK_RATIO = 8.0  # a planted sink is at least this many times as large as an ordinary token
MAX_SINK_NORM = 1e4
ORDINARY_NORM = 8.2  # of an ordinary token's residual, without the residual sink
MIN_RESIDUAL_SINK = 8.0  # > 10 times the median coordinate


def check_spec(spec: PlantedSpec, kinds: tuple[str, ...]) -> None:
    """Raise ModelError where the specification cannot be built."""
    _check_shape(spec)
    _check_heads(spec, kinds)
    for group in range(spec.n_layers * spec.n_kv_heads):
        _check_group(spec, *divmod(group, spec.n_kv_heads))
    _check_support(spec)
    if spec.circuits:
        check_circuits(spec)
    if spec.residual_sink is not None:
        dimension, magnitude = spec.residual_sink
        _within("residual sink dimension", dimension, 0, spec.hidden_size - 1)
        _within("residual sink magnitude", abs(magnitude), MIN_RESIDUAL_SINK, 200.0)
    for sink in spec.sinks:
        _check_sink(spec, sink)
    _check_overlaps(spec)
    _check_sink_heads(spec)


def _within(what: str, found: float, low: float, high: float, fix: str | None = None) -> None:
    if not low <= found <= high:
        raise ModelError(what, found=found, expected=f"{low} to {high}", fix=fix)


def _check_shape(spec: PlantedSpec) -> None:
    _within("planted layers", spec.n_layers, 1, 256)
    _within("planted query heads", spec.n_heads, 1, 256)
    if spec.n_kv_heads < 1 or spec.n_heads % spec.n_kv_heads:
        raise ModelError("planted KV heads", found=spec.n_kv_heads, expected=f"a divisor of {spec.n_heads}")
    if spec.head_dim not in (64, 128):
        raise ModelError("planted head dimension", found=spec.head_dim, expected="64 or 128")
    _within("planted vocabulary", spec.vocab_size, 64, 1024)
    _within("planted hidden size", spec.hidden_size, 192, 1024)
    _within("planted context length", spec.context_length, 64, 4096)
    _within("far distance", spec.far_distance, 16, min(512, spec.context_length - 1))


def _check_heads(spec: PlantedSpec, kinds: tuple[str, ...]) -> None:
    for head in [*spec.heads, *spec.knocked_out]:
        if not (0 <= head.layer < spec.n_layers and 0 <= head.head < spec.n_heads):
            expected = f"a layer below {spec.n_layers} and a query head below {spec.n_heads}"
            raise UnknownHeadError(f"planted head {head}", found="no such place", expected=expected)
    for head, kind in spec.heads.items():
        if kind not in kinds:
            raise ModelError(f"kind of planted head {head}", found=repr(kind), expected=f"one of {', '.join(kinds)}")
    for head in spec.knocked_out:
        if spec.kind(head) == "unclassified":
            raise ModelError(f"knock-out of {head}", found="no planted head there", expected="a planted head")


def _check_group(spec: PlantedSpec, layer: int, group: int) -> None:
    start = group * spec.group_size
    heads = [HeadId(layer, head) for head in range(start, start + spec.group_size)]
    duplicate = [head for head in heads if spec.kind(head) == "duplicate_token"]
    copying = [head for head in heads if spec.kind(head) in ("induction", "retrieval", "lookup", "second_lookup")]
    if duplicate and copying:
        raise ModelError(
            f"KV head {group} of layer {layer}",
            found=f"duplicate-token head {duplicate[0]} beside {spec.kind(copying[0])} head {copying[0]}",
            expected="one of the two, since they share keys",
            fix="Move one of them to another KV head, or raise n_kv_heads.",
        )


def _check_support(spec: PlantedSpec) -> None:
    writers = spec.of_kind("previous_token")
    for head in [head for kind in ("induction", "retrieval", "lookup", "second_lookup") for head in spec.of_kind(kind)]:
        if not writers or writers[0].layer >= head.layer:
            raise ModelError(
                f"{spec.kind(head)} head {head}",
                found=f"the first previous-token head at {writers[0]}" if writers else "no previous-token head",
                expected="a previous-token head in an earlier layer",
            )
        for sink in spec.sinks:
            if sink.token != "bos" and sink.alive_at(writers[0].layer, spec.n_layers):
                raise ModelError(
                    f"planted sink at token {sink.token}",
                    found=f"it is massive at the input of {writers[0]}, which {spec.kind(head)} head {head} needs",
                    expected=f"a sink written at layer {writers[0].layer} or later, or erased before it",
                )


def _check_sink(spec: PlantedSpec, sink: PlantedSink) -> None:
    name = f"planted sink at token {sink.token}"
    if sink.token != "bos":
        _within(f"{name}: token id", sink.token, 1, spec.vocab_size - 1, 'Write token="bos" for the first token.')
    _within(f"{name}: layer", sink.layer, 0, spec.n_layers - 1)
    if sink.lifetime is not None:
        fix = "Use None for a sink that is never erased."
        _within(f"{name}: lifetime", sink.lifetime, 1, spec.n_layers - sink.layer, fix)
    magnitude = 0.0 if spec.residual_sink is None else spec.residual_sink[1]
    least = MIN_SINK_RATIO * (ORDINARY_NORM**2 + (0.0 if sink.token == "bos" else magnitude) ** 2) ** 0.5
    _within(f"{name}: norm", sink.norm, round(least, 1), MAX_SINK_NORM)
    if not sink.fading:
        return
    _within(f"{name}: norm a step of its fading", sink.norm / len(sink.outputs(spec.n_layers)), least, MAX_SINK_NORM)
    if len(spec.sinks) > 1 or spec.residual_sink is not None or spec.of_kind("sink"):
        raise ModelError(
            name,
            found="a fading sink beside other sinks, a residual sink or sink heads",
            expected="a fading sink alone, since later MLPs take every sink back",
        )


def _check_overlaps(spec: PlantedSpec) -> None:
    for index, sink in enumerate(spec.sinks):
        for other in spec.sinks[:index]:
            # the block that erases a sink may not write it again: both neurons would read the same token
            one, two = sink.outputs(spec.n_layers), other.outputs(spec.n_layers)
            if sink.token == other.token and one.start <= two.stop and two.start <= one.stop:
                raise ModelError(
                    f"planted sinks at token {sink.token}",
                    found=f"lifetimes over block outputs {one} and {two}",
                    expected="lifetimes at least one block apart",
                )


def _check_sink_heads(spec: PlantedSpec) -> None:
    if spec.sink_heads_read == "bos":
        return
    for head in spec.of_kind("sink"):
        if not any(sink.token == "bos" and sink.alive_at(head.layer, spec.n_layers) for sink in spec.sinks):
            raise ModelError(
                f"sink head {head}",
                found="no BOS sink alive at its input",
                expected='a PlantedSink("bos", ...) written before its layer and not yet erased',
                fix='Or use sink_heads_read="bos".',
            )
