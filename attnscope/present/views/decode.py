"""The decode plan: which KV heads keep their whole cache."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.report import HeadReport, KVHeadRecord


@dataclass(frozen=True)
class DecodeView:
    """Roles of all KV heads and what they save.

    Attributes:
        context: tokens for which `kept` is given: the longest trained context, or 8192 where it is unknown.
        kept: share of the full KV cache that is kept at that length.
    """

    rule: str
    layers: tuple[int, ...]
    n_kv_heads: int
    kv_heads: tuple[KVHeadRecord, ...]
    sink_tokens: int
    recent_tokens: int
    full: int
    streaming: int
    context: int
    kept: float

    @property
    def sentence(self) -> str:
        """What the plan does."""
        total = self.full + self.streaming
        return (
            f"{self.streaming} of {total} KV heads may stream: they keep {self.sink_tokens} sink tokens and the last "
            f"{self.recent_tokens}. At {self.context:,} tokens the cache holds {self.kept:.0%} of what it would."
        )


def decode_view(report: HeadReport, context: int | None = None) -> DecodeView:
    """Return the plan."""
    plan, info = report.decode, report.model
    tokens = context or info.context_length or 8192
    full = sum(item.role == "full" for item in plan.kv_heads)
    share = full / max(1, len(plan.kv_heads))
    streaming_share = min(1.0, (plan.sink_tokens + plan.recent_tokens) / tokens)
    return DecodeView(
        rule=plan.rule,
        layers=info.attention_layers,
        n_kv_heads=info.n_kv_heads,
        kv_heads=plan.kv_heads,
        sink_tokens=plan.sink_tokens,
        recent_tokens=plan.recent_tokens,
        full=full,
        streaming=len(plan.kv_heads) - full,
        context=tokens,
        kept=share + (1 - share) * streaming_share,
    )
