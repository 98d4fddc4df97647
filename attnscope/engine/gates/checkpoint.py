"""The state of a training run in one safetensors file: gates, AdamW's moments, curves; scalars as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...core.errors import OutputError


@dataclass
class State:
    """Where a training run stands.

    Attributes:
        step: steps done.
        tensors: by name: gates, moments, curves; float32 or float64.
        scalars: by name, for example the weight of a constraint.
    """

    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)


class GateCheckpoint:
    """Keeps a training run on disk; does nothing where no path is given.

    Args:
        path: the file, or None.
        identity: text that says what is trained on what; a file of another run is refused.
        every: least seconds between two writes; 0 writes every step.
    """

    def __init__(self, path: str | Path | None, identity: str, every: float = 5.0) -> None:
        self.path = Path(path) if path is not None else None
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.every, self._last = every, time.monotonic()

    def restore(self) -> State | None:
        """Return the state on disk, or None where there is none.

        Raises:
            OutputError: the file is corrupt or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                meta = json.loads(file.metadata()["attnscope"])
                if meta["identity"] != self.identity:
                    raise OutputError(
                        f"checkpoint {self.path}",
                        found="the state of another training run",
                        expected="the same model, prompts, method and settings",
                        fix="Delete it, or choose another place.",
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return State(int(meta["step"]), tensors, dict(meta["scalars"]))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise OutputError(f"checkpoint {self.path}", found=f"unreadable: {error}", fix="Delete it.") from error

    def due(self) -> bool:
        """Return whether a write is due."""
        return self.path is not None and time.monotonic() - self._last >= self.every

    def save(self, state: State) -> None:
        """Write the state beside its place and rename it there.

        Raises:
            OutputError: the disk refused.
        """
        if self.path is None:
            return
        self._last = time.monotonic()
        fresh = self.path.with_name(f".{self.path.name}.new")
        meta = {"identity": self.identity, "step": state.step, "scalars": state.scalars}
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.tensors.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, fresh, metadata={"attnscope": json.dumps(meta)})
            fresh.replace(self.path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"checkpoint {self.path}", found=str(error), expected="a writable place") from error
