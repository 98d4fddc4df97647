"""Results of the parts of a long job, kept on disk so that a repeated call goes on where the first one stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import OutputError

if TYPE_CHECKING:
    import xarray as xr

_T = TypeVar("_T")
IDENTITY = "job.json"


class Stages:
    """A folder of finished parts; keeps nothing where no folder is given.

    Args:
        folder: for example `runs/pocket-sinks.partial`, or None.
        identity: text that says what job it is; the parts of another job are refused.

    Raises:
        OutputError: the folder holds parts of another job, or something else.

    Example:
        >>> stages = Stages(None, "nothing is kept")
        >>> stages.keep("losses", list[float], lambda: [1.0, 2.0])
        [1.0, 2.0]
    """

    def __init__(self, folder: str | Path | None, identity: str) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        if self.folder is None or not self.folder.exists():
            return
        try:
            known = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._refusal(f"no {IDENTITY} that can be read ({error})") from error
        if known != self._identity:
            raise self._refusal("parts of another model, other prompts or another plan")

    def keep(self, name: str, kind: Any, make: Callable[[], _T]) -> _T:
        """Return the part that was kept under a name, or make it and keep it.

        Args:
            name: of the part.
            kind: its type, as pydantic understands it: models, dataclasses, lists and tuples of them.
            make: called where nothing is kept.

        Raises:
            OutputError: the kept part is corrupt, or the place cannot be written.
        """
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        adapter = TypeAdapter(tuple[kind], config=ConfigDict(ser_json_inf_nan="strings"))
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is None:
            return make()
        if path.exists():
            try:
                return adapter.validate_json(path.read_bytes())[0]  # type: ignore[no-any-return]
            except (OSError, ValidationError) as error:
                raise self._refusal(f"{path.name}, which cannot be read ({error})") from error
        made = make()
        self._write(path, lambda fresh: fresh.write_bytes(adapter.dump_json((made,))))
        return made

    def keep_dataset(self, name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
        """Do the same with a dataset.

        Raises:
            OutputError: the kept dataset is corrupt, or the place cannot be written.
        """
        import xarray as xr

        path = None if self.folder is None else self.folder / f"{name}.zarr"
        if path is None:
            return make()
        if path.exists():
            try:
                return xr.open_zarr(path, consolidated=False, chunks=None).load()
            except (ValueError, KeyError, OSError) as error:
                raise self._refusal(f"{path.name}, which cannot be read ({error})") from error
        made = make()
        self._write(path, lambda fresh: made.to_zarr(fresh, mode="w", zarr_format=2, consolidated=False))
        return made

    def clear(self) -> None:
        """Delete every part: the job is done."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        fresh = path.with_name(f".{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (path.parent / IDENTITY).exists():
                (path.parent / IDENTITY).write_text(json.dumps({"identity": self._identity}), encoding="utf-8")
            shutil.rmtree(fresh, ignore_errors=True)
            write(fresh)
            fresh.replace(path)
        except OSError as error:
            raise OutputError(f"part {path}", found=str(error), expected="a writable place") from error

    def _refusal(self, found: str) -> OutputError:
        return OutputError(
            f"unfinished job {self.folder}",
            found=found,
            expected="the parts of this same job",
            fix="Delete the folder, or choose another --out.",
        )
