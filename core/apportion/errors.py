"""Every error that apportion raises on purpose.

A message says what happened, with which value, what is available, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ApportionError",
    "BackendError",
    "BatchTooLargeError",
    "BudgetError",
    "CapabilityError",
    "InputError",
    "ModelError",
    "PluginError",
    "ResultError",
    "ScoreError",
    "UnknownNameError",
]


class ApportionError(Exception):
    """Base of all errors raised by apportion; catch this one to catch them all."""


class InputError(ApportionError, ValueError):
    """A prompt, target or option that cannot be attributed as given."""


class BudgetError(InputError):
    """A budget too small for the method, or a method that asked for more than its budget."""


class UnknownNameError(InputError):
    """A name (method, backend, option, …) that nothing is registered under."""


class ModelError(ApportionError):
    """A model that cannot be loaded or cannot be scored."""


class BackendError(ApportionError):
    """A backend that is unavailable on this machine."""


class CapabilityError(BackendError):
    """A method or target function asked for something that the backend cannot do."""


class BatchTooLargeError(ApportionError, MemoryError):
    """A session ran out of memory on one batch; the batch is halved and scoring goes on."""


class ScoreError(ApportionError):
    """A model or target function gave a value that is not finite."""


class PluginError(ApportionError):
    """A plugin that breaks a rule of the plugin system."""


class ResultError(ApportionError):
    """A saved result that cannot be read, or a view of a result that does not exist."""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """``a, b, c`` with the rest counted: what an error shows as available."""
    shown = [str(name) for name in names]
    if not shown:
        return "none"
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def suggestion(name: str, available: Iterable[str]) -> str:
    """``Did you mean 'shapley'? `` (with the trailing space), or an empty string."""
    close = difflib.get_close_matches(name, list(available), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}? " if close else ""


def unknown_name(kind: str, name: str, available: Iterable[str], hint: str = "") -> UnknownNameError:
    """The error for a name that is not among ``available``.

    Args:
        kind: what was looked up, as a user would say it (``"method"``).
        name: what was asked for.
        available: what there is.
        hint: what else to do, a sentence.
    """
    names = sorted(available)
    text = f"No {kind} is called {name!r}. {suggestion(name, names)}Available: {listing(names)}."
    return UnknownNameError(f"{text} {hint}".rstrip())
