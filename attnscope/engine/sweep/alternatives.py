"""What takes the place of a unit's own value: zero, a mean, another run's, other prompts', or an edit's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ...core.errors import TaskError
from ...core.ids import HeadId
from ..forward import forward
from .units import SITE, Unit

if TYPE_CHECKING:
    from ...edits._base import Edit
    from ...models._base import Scope, Site
    from .chunks import Chunk

Place = Literal["z"] | str
"""`z` for heads, or a site of the residual stream."""


class Values(Protocol):
    """Other values for one chunk."""

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        """Return other outputs of all heads of a layer.

        Args:
            layer: 0-based.
            call: gives the layer's attention call of these rows, with every key.
            z: `[V, B, H, n, Dv]` their own outputs at the positions that run.

        Returns:
            A tensor that broadcasts to z.
        """
        ...

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        """Return other values of a site, broadcasting to x `[V, B, n, W]`."""
        ...


class Alternative(Protocol):
    """What takes the place of units; bound to each chunk before it runs."""

    @property
    def name(self) -> str:
        """Recorded with results."""
        ...

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Return values for one chunk, at its positions from `start` on."""
        ...


@dataclass(frozen=True)
class Zero:
    """Nothing: zero ablation."""

    name: ClassVar[str] = "zero"

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Return zeros."""
        return self

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        """Return 0."""
        return z.new_zeros(())

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        """Return 0."""
        return x.new_zeros(())


@dataclass(frozen=True, eq=False)
class Fixed:
    """The same value for every prompt and position: mean ablation, with means over a reference set.

    Attributes:
        values: (place, layer) → `[H, Dv]` for `z`, `[W]` for a site.
        name: recorded with results.

    Raises:
        TaskError: while binding, where a value is missing.
    """

    values: Mapping[tuple[Place, int], Tensor] = field(repr=False)
    name: str = "mean"

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Return the values."""
        lacking = sorted({str(unit) for unit in units if (_place(unit), unit.layer) not in self.values})
        if lacking:
            raise TaskError(f"{self.name} ablation", found=f"no value for {', '.join(lacking[:5])}", expected="one")
        return self

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        """Return the layer's values."""
        return self.values["z", layer].to(z)[None, None, :, None]

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        """Return the site's values."""
        return self.values[site, layer].to(x)


@dataclass(frozen=True)
class OtherRun:
    """Values of another run, prompt by prompt and position by position: activation patching.

    Attributes:
        column: token ids of the other run, as long as the prompts; with prompts `corrupt_ids` and `column="input_ids"`
            clean values go into the corrupt run (denoising), the other way round is noising.
    """

    column: str = "corrupt_ids"

    @property
    def name(self) -> str:
        """Name with the column."""
        return f"patch from {self.column}"

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Run the others and keep their values.

        Raises:
            TaskError: no such column, or prompts of another length.
        """
        return record(scope, chunk, self.ids(chunk), units, start, implementation)

    def ids(self, chunk: Chunk) -> Tensor:
        """Return the other run's tokens `[B, T]`, the answer's behind them.

        Raises:
            TaskError: no such column, or prompts of another length.
        """
        others = []
        for prompt, row, own in zip(chunk.prompts, chunk.rows, chunk.ids.tolist(), strict=True):
            if self.column not in row:
                raise TaskError("patching", found=f"columns {sorted(row)}", expected=f"a column {self.column!r}")
            ids, answer = list(row[self.column]), chunk.targets.shape[1] - 1
            length = len(own) - answer
            if len(ids) != length:
                raise TaskError(
                    f"pair {prompt}", found=f"{length} tokens against {len(ids)}", expected="equally many in both"
                )
            others.append([*ids, *own[length:]])
        return torch.tensor(others, device=chunk.ids.device)


@dataclass(frozen=True)
class OtherPrompts:
    """Values of another prompt of the same length and the same positions: resample ablation.

    Attributes:
        seed: chooses who gives to whom; no prompt gives to itself.
    """

    seed: int = 0
    name: ClassVar[str] = "resample"

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Run the prompts in another order and keep their values.

        Raises:
            TaskError: a prompt has no other of its length.
        """
        if chunk.size < 2:
            raise TaskError(
                f"resample ablation of prompt {chunk.prompts[0]}",
                found=f"no other prompt of {chunk.ids.shape[1]} tokens",
                expected="at least one",
                fix="Use prompts of equal length, or more of them.",
            )
        step = 1 + self.seed % (chunk.size - 1)
        return record(scope, chunk, chunk.ids.roll(step, 0), units, start, implementation)


@dataclass(frozen=True, eq=False)
class FromEdit:
    """What an edit gives: uniform or static attention, a knockout, a scale.

    Attributes:
        make: heads → the edit on them; the edit must act on each head by itself.
        name: recorded with results.
    """

    make: Callable[[tuple[HeadId, ...]], Edit]
    name: str = "edit"

    def bind(self, scope: Scope, chunk: Chunk, units: Sequence[Unit], start: int, implementation: str) -> Values:
        """Return what computes the edit's outputs."""
        return _Edited(self.make, scope.info.n_heads, implementation)


@dataclass(frozen=True, eq=False)
class _Edited:
    make: Callable[[tuple[HeadId, ...]], Edit]
    n_heads: int
    implementation: str

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        edit = self.make(tuple(HeadId(layer, head) for head in range(self.n_heads)))
        if edit.sites:
            raise TaskError(f"edit {edit.name} of heads", found=f"sites {edit.sites}", expected="attention alone")
        changed = edit.call(call())
        output = attend(changed, None, self.implementation).output
        assert output is not None
        return edit.output(changed, output).view(z.shape)

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        raise TaskError("an edit of heads", found=f"a unit at {site}", expected="units of the level 'head'")


@dataclass(frozen=True, eq=False)
class Recorded:
    """Values of one run: (place, layer) → `[B, H, n, Dv]` for `z`, `[B, n, W]` for a site."""

    values: dict[tuple[Place, int], Tensor] = field(repr=False)

    def heads(self, layer: int, call: Callable[[], AttentionCall], z: Tensor) -> Tensor:
        """Return the run's outputs."""
        return self.values["z", layer]

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        """Return the run's values."""
        return self.values[site, layer]

    def later(self, tokens: int) -> Recorded:
        """Return the values without the first tokens."""
        return Recorded({key: x[..., tokens:, :] for key, x in self.values.items()})


def record(
    scope: Scope, chunk: Chunk, ids: Tensor, units: Sequence[Unit], start: int, implementation: str = "auto"
) -> Recorded:
    """Run tokens and keep the values of units at positions from `start` on."""
    wanted: set[tuple[Place, int]] = {(_place(unit), unit.layer) for unit in units}
    sites = [site for site in SITE.values() if any(place == site for place, _ in wanted)]
    kept: dict[tuple[Place, int], Tensor] = {}

    def listen(call: AttentionCall, result: Any) -> None:
        if ("z", call.layer) in wanted:
            kept["z", call.layer] = result.output[:, :, start:].clone()

    def residual(layer: int, site: Site, x: Tensor) -> None:
        if (site, layer) in wanted:
            kept[site, layer] = x[:, start:].clone()

    batch = chunk.batch(ids)
    with forward(scope, batch, implementation=implementation, listen=listen, residual=residual, sites=sites):
        scope.run(batch)
    return Recorded(kept)


def _place(unit: Unit) -> Place:
    return "z" if unit.module == "head" else SITE[unit.module]
