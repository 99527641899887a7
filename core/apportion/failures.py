"""Failures of plugins, told in one sentence that says whose code failed and where; the cause stays chained."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pluggy

from apportion.errors import ApportionError, PluginError

__all__ = ["explained", "failures_of_plugin"]

_OWN = f"{Path(__file__).parent}{os.sep}"  # packages of plugins may begin with the same name
_MACHINERY = (_OWN, str(Path(pluggy.__file__).parent), "<frozen importlib")


@contextmanager
def failures_of_plugin(what: str, *, unless: tuple[type[Exception], ...] = (), asks: bool = True) -> Iterator[None]:
    """Context in which an object of a plugin is called.

    Args:
        what: the object, such as ``"The method 'mine'"``.
        unless: further errors to raise unchanged.
        asks: it asks apportion for things that may fail without its fault, such as the scores of the model.

    Raises:
        PluginError: the object failed. Subclasses of ``ApportionError`` are raised unchanged, and so are errors of what
            it asked for.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ApportionError, *unless)) or (asks and _asked_for(error)):
            raise
        raise PluginError(f"{what} failed: {explained(error)}") from error


def explained(error: BaseException) -> str:
    """Describe an error on one line; unless it is one of apportion's own, say where in the plugin it happened."""
    if isinstance(error, ApportionError):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_MACHINERY)]
    if not frames or isinstance(error, SyntaxError):
        return text
    last = frames[-1]
    where = "" if last.name == "<module>" else f"{last.name}, "
    return f"{text} (in {where}{Path(last.filename).name}, line {last.lineno})"


def _asked_for(error: Exception) -> bool:
    """True if the plugin's code had called back into apportion when the error was raised."""
    own = [frame.f_code.co_filename.startswith(_OWN) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(own[own.index(False) :]) if False in own else False
