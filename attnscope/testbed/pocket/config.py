"""The recipe: everything that decides what the pocket model becomes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shares:
    """How the training tokens divide: rows of prose alone, rows of one long needle, and packed short documents."""

    prose: float = 0.42
    long_needle: float = 0.08
    puzzles: float = 0.34
    facts: float = 0.26
    needles: float = 0.25
    repeats: float = 0.15


@dataclass(frozen=True)
class Recipe:
    """The pocket model's architecture, data mixture and optimiser."""

    vocab: int = 4096
    hidden: int = 320
    intermediate: int = 896
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    context: int = 8192
    rope_theta: float = 100_000.0

    tokens_per_step: int = 65_536
    short: int = 2048
    long: int = 8192
    long_from: float = 0.2
    long_share: float = 0.3
    shares: Shares = field(default_factory=Shares)
    long_shares: Shares = field(default_factory=lambda: Shares(prose=0.3, long_needle=0.55))
    answer_weight: int = 8

    lr: float = 2.5e-3
    final_lr: float = 0.01
    warmup: int = 200
    decay_from: float = 0.7
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0

    @classmethod
    def for_cpu(cls) -> Recipe:
        """The same recipe at a size that a laptop's processor trains in minutes; its model knows far less."""
        return cls(
            hidden=192, intermediate=512, layers=4, heads=4, kv_heads=2, tokens_per_step=4096, short=512, long=2048
        )

    def to_json(self) -> str:
        """The recipe as text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read back what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        raw["shares"], raw["long_shares"] = Shares(**raw["shares"]), Shares(**raw["long_shares"])
        raw["betas"] = tuple(raw["betas"])
        return cls(**raw)

    def save(self, path: Path) -> None:
        """Write the recipe to a file."""
        path.write_text(self.to_json() + "\n", encoding="utf-8")

    def scale(self, progress: float, step: int, restarted_at: int = 0) -> float:
        """The learning rate's factor: warm up, stay, then fall linearly (a restart warms up again)."""
        up = min(1.0, (step - restarted_at + 1) / self.warmup)
        if progress <= self.decay_from:
            return up
        left = max(0.0, (1 - progress) / (1 - self.decay_from))
        return up * max(self.final_lr, left)
