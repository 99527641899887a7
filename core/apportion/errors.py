"""All errors that apportion raises on purpose.

A message says what happened, quotes the value, lists what is available, and suggests a fix.
"""

from __future__ import annotations

import difflib
import math
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
    "ServerError",
    "UnknownNameError",
]


class ApportionError(Exception):
    """Base class of all errors raised by apportion; catch it to catch any of them."""


class InputError(ApportionError, ValueError):
    """A prompt, target or option is invalid."""


class BudgetError(InputError):
    """The budget is too small for the method, or the method exceeded its budget."""


class UnknownNameError(InputError):
    """Nothing is registered under a name (of a method, backend, option, …)."""


class ModelError(ApportionError):
    """A model cannot be loaded or cannot be scored."""


class BackendError(ApportionError):
    """A backend is unavailable on this machine."""


class CapabilityError(BackendError):
    """A method or target function needs something that the backend cannot do."""


class ServerError(BackendError):
    """A server no longer answers, refuses the key, or answers what cannot be read; or a limit on requests is reached.

    Nothing more can be scored: it ends all runs of ``attribute_many``, even with ``on_error="return"``.
    """


class BatchTooLargeError(ApportionError, MemoryError):
    """A session ran out of memory on a batch; the batch is halved and scoring continues."""


class ScoreError(ApportionError):
    """A model or target function returned a value that is not finite."""


class PluginError(ApportionError):
    """A plugin breaks a rule of the plugin system."""


class ResultError(ApportionError):
    """A saved result cannot be read, or a requested view of a result does not exist."""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Join names as ``a, b, c and 3 more``, for the list of available names in an error."""
    shown = [str(name) for name in names]
    if not shown:
        return "none"
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 feature``, ``2 features``.

    Args:
        number: the number.
        noun: singular of the noun.
        plural: plural, if it does not only add an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def shown_number(number: int) -> str:
    """The digits of a whole number, or ``about 10^4515``: Python does not write out thousands of digits."""
    if number.bit_length() <= 256:
        return str(number)
    return f"about {'-' if number < 0 else ''}10^{math.log10(abs(number)):.0f}"


def shown(value: object, longest: int = 80) -> str:
    """A value that a user passed, as Python writes it, shortened; it never fails, whatever the value is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return shown_number(value)
    try:
        text = repr(value)
    except Exception:  # a list of numbers with thousands of digits, or an object whose repr fails
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def suggestion(name: str, available: Iterable[str]) -> str:
    """Return ``Did you mean 'shapley'? `` (with the trailing space), or an empty string."""
    close = difflib.get_close_matches(name, list(available), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}? " if close else ""


def unknown_name(kind: str, name: str, available: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for a name that is not among ``available``.

    Args:
        kind: kind of thing that was looked up, as a user would call it (``"method"``).
        name: name that was requested.
        available: names that exist.
        hint: one more sentence of advice.
    """
    names = sorted(available)
    text = f"No {kind} is called {name!r}. {suggestion(name, names)}Available: {listing(names)}."
    return UnknownNameError(f"{text} {hint}".rstrip())
