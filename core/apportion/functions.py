"""Functions that users pass as arguments: errors that say whose function failed, or returned a wrong type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apportion.errors import ApportionError, InputError, shown

__all__ = ["failures_of", "wrong_answer"]


@contextmanager
def failures_of(
    function: object, argument: str, given: Callable[[], str], *, unless: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Context in which a function of the user is called.

    Args:
        function: the function.
        argument: name of the argument that it was passed as.
        given: describes the input that it is called with; itself called only if the function fails.
        unless: further errors to raise unchanged.

    Raises:
        InputError: the function failed. Subclasses of ``ApportionError`` are raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ApportionError, *unless)):
            raise
        raise InputError(f"{_whose(function, argument)} failed on {given()}: {_explained(error)}") from error


def wrong_answer(function: object, argument: str, wanted: str, found: object, hint: str = "") -> InputError:
    """Make the error for a return value of the wrong type.

    Args:
        function: the function.
        argument: name of the argument that it was passed as.
        wanted: the return value that is required, such as ``"a list of strings"``.
        found: its return value.
        hint: one more sentence of advice.
    """
    return InputError(f"{_whose(function, argument)} must return {wanted}, not {shown(found)}. {hint}".rstrip())


def _whose(function: object, argument: str) -> str:
    name = getattr(function, "__name__", None) or type(function).__name__
    return f"The function {name!r} given as {argument}"


def _explained(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
