"""Errors of the facade: those of apportion, and of the types that Captum raises."""

from __future__ import annotations

from apportion.errors import InputError

__all__ = ["RefusedError", "WrongTypeError", "positive", "require"]


class RefusedError(InputError, AssertionError):
    """An argument is not allowed; Captum raises ``AssertionError``."""


class WrongTypeError(InputError, TypeError):
    """An argument has the wrong type; Captum raises ``TypeError``."""


def require(condition: bool, message: str) -> None:
    """Refuse an argument.

    Raises:
        RefusedError: the condition does not hold.
    """
    if not condition:
        raise RefusedError(message)


def positive(name: str, value: object) -> int:
    """A whole number from 1.

    Raises:
        RefusedError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RefusedError(f"{name}={value!r:.40} must be a whole number of at least 1")
    return value
