"""Turn what the user called the model into a local folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..core.errors import ModelNotFoundError, UnsupportedModelError
from ._folder import PICKLES

_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHTS = "*.safetensors"


def local_folder(
    model: str | Path, *, revision: str | None = None, code: bool = False, weights: bool = True
) -> tuple[Path, str | None]:
    """Return the folder of a model and, for a hub id, the commit; hub files are downloaded (safetensors only).

    Args:
        model: a folder or a hub id.
        revision: of a hub id.
        code: download modelling code too.
        weights: download the weights.

    Raises:
        ModelNotFoundError: no such folder or hub id, or the hub cannot be reached.
        UnsupportedModelError: the name is that of a pickled weight file.
    """
    path = Path(model).expanduser()
    if any(path.match(pattern) for pattern in PICKLES):
        raise UnsupportedModelError(
            f"model {str(model)!r}",
            found="a pickle file",
            expected="a folder with config.json and *.safetensors",
            fix="Pickles can run code when they are opened, so attnscope never does.",
        )
    if path.exists() or _looks_like_path(model):
        return path, None
    return _download(str(model), revision, code, weights)


def _looks_like_path(model: str | Path) -> bool:
    text = str(model)
    starts = text.startswith(("/", "./", "../", "~", "."))
    return isinstance(model, Path) or starts or "\\" in text or text.endswith(".safetensors") or not _HUB_ID.match(text)


def _download(model: str, revision: str | None, code: bool, weights: bool) -> tuple[Path, str | None]:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    allowed = [*_FILES, *([_WEIGHTS] if weights else []), *(["*.py"] if code else [])]
    wanted: dict[str, Any] = {"allow_patterns": allowed, "ignore_patterns": ["*/*"]}
    try:
        folder = Path(snapshot_download(model, revision=revision, **wanted))
    except GatedRepoError as error:
        fix = "Accept its terms on the hub and log in with `hf auth login`."
        raise _missing(model, "a gated repository", fix) from error
    except RevisionNotFoundError as error:
        raise _missing(model, f"no revision {revision!r}", "Check the branch, tag or commit.") from error
    except RepositoryNotFoundError as error:
        fix = "Check the spelling, or log in if it is private. A local folder needs a path such as ./name."
        raise _missing(model, "no such repository on the hub", fix) from error
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") else ""
        found = f"no folder {model!r} here, no copy in {constants.HF_HUB_CACHE}, and the hub cannot be reached{offline}"
        fix = "Give a local folder, connect to the network, or load the embedded model with load()."
        raise _missing(model, found, fix) from error
    return folder, folder.name if folder.parent.name == "snapshots" else None


def _missing(model: str, found: str, fix: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"model {model!r}", found=found, expected="a local folder or a hub id", fix=fix)
