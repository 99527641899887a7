"""Options of plugins: the keyword-only parameters that they name, and nothing else."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Set
from typing import Any

from apportion.errors import InputError, listing, suggestion

__all__ = ["PLACEMENT", "check_options", "checked_seed", "named_options", "whole_number"]

PLACEMENT = frozenset({"device", "dtype", "memory_budget"})
"""What every backend's ``load`` takes: arguments of ``Explainer``, not options of a backend."""
RESERVED = frozenset({"budget", "rng"})
"""Keyword arguments that apportion passes to every method or metric; not options."""


def whole_number(name: str, value: object, *, least: int) -> int:
    """The number that an argument or option gives; numbers of NumPy are taken too.

    Raises:
        InputError: it is no whole number, or is below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number of at least {least}.")
    return int(value)


def checked_seed(seed: object) -> int:
    """A seed of a generator.

    Raises:
        InputError: it is no whole number from 0 to 2^63 − 1.
    """
    found = whole_number("seed", seed, least=0)
    if found >= 2**63:
        raise InputError(f"seed={seed} must be below 2^63.")
    return found


def named_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options that a function names, in order."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in RESERVED}


def check_options(
    owner: str, function: Callable[..., Any], options: Mapping[str, object], apart: Set[str] = frozenset()
) -> None:
    """Refuse options that a function does not name, even when a catch-all would swallow them.

    Args:
        owner: how the message calls it, such as ``"method 'shapley'"``.
        function: what will be called with the options.
        options: what the user gave.
        apart: keyword-only parameters that are no options.

    Raises:
        InputError: an unknown option; the message lists the options there are.
    """
    known = [name for name in named_options(function) if name not in apart]
    for option in options:
        if option not in known:
            raise InputError(
                f"The {owner} has no option {option!r}. {suggestion(option, known)}"
                f"Its options: {listing(known) or 'none'}."
            )
