"""Every example in a docstring runs, and every public thing has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import attnscope
import attnscope_kernels


def modules() -> list[str]:
    names = []
    for package in (attnscope, attnscope_kernels):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [m.name for m in found if not m.name.endswith("__main__")]
    return names


def imported(name: str) -> ModuleType:
    """Skip what needs triton where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        pytest.skip("triton is not installed")


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    module = imported(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0


@pytest.mark.parametrize("name", modules())
def test_public_things_say_what_they_are(name: str) -> None:
    module = imported(name)
    assert module.__doc__, name
    for key, thing in vars(module).items():
        if key.startswith("_") or getattr(thing, "__module__", None) != name:
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{key}"
