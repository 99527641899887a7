"""Keeping what other libraries say off stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_libraries"]

VERBOSITY = "TRANSFORMERS_VERBOSITY"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Only errors of transformers, unless the user asked for more with ``TRANSFORMERS_VERBOSITY``."""
    before = os.environ.get(VERBOSITY)
    os.environ.setdefault(VERBOSITY, "error")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VERBOSITY, None)
