"""Keep transformers' progress bars and log lines out of the way, and put them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own bars and warnings while loading; what they would say is checked and raised instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging._tqdm_active
    try:
        logging.set_verbosity_error()
        logging._tqdm_active = False  # the public switch would also turn off huggingface_hub's download bars
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging._tqdm_active = bars
