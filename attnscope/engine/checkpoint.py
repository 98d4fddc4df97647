"""Checkpoints of a collection: additive states in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..collectors._base import State
from ..core.errors import OutputError


class Checkpoint:
    """Keeps states on disk between batches; does nothing where no path is given.

    Args:
        path: the file, or None.
        identity: text that says what is collected; a file of another collection is refused.
        every: least seconds between two writes.
    """

    def __init__(self, path: str | Path | None, identity: str, every: float = 5.0) -> None:
        self.path = Path(path) if path is not None else None
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.every, self._last = every, time.monotonic()

    def restore(self, states: dict[str, State]) -> tuple[set[int], set[str]]:
        """Fill the states from the file and return (prompts done, implementations that ran).

        Raises:
            OutputError: the file is corrupt or belongs to another collection.
        """
        if self.path is None or not self.path.exists():
            return set(), set()
        try:
            with safe_open(self.path, framework="numpy") as file:
                meta = json.loads(file.metadata()["attnscope"])
                if meta["identity"] != self.identity:
                    raise OutputError(
                        f"checkpoint {self.path}",
                        found="the state of another collection",
                        expected="the same model, prompts and collectors",
                        fix="Delete it, or choose another place.",
                    )
                for name, state in states.items():
                    for key in state:
                        state[key][...] = file.get_tensor(f"{name}.{key}")
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise OutputError(f"checkpoint {self.path}", found=f"unreadable: {error}", fix="Delete it.") from error
        return set(meta["done"]), set(meta["implementations"])

    def save(self, states: dict[str, State], done: set[int], implementations: set[str], last: bool) -> None:
        """Write the states, at most once every few seconds but for the last, and rename them into place."""
        if self.path is None or not (last or time.monotonic() - self._last >= self.every):
            return
        self._last = time.monotonic()
        fresh = self.path.with_name(f".{self.path.name}.new")
        meta = {"identity": self.identity, "done": sorted(done), "implementations": sorted(implementations)}
        arrays = {f"{name}.{key}": array for name, state in states.items() for key, array in state.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, fresh, metadata={"attnscope": json.dumps(meta)})
            fresh.replace(self.path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"checkpoint {self.path}", found=str(error), expected="a writable place") from error
