"""Options of plugins: their named keyword-only parameters, and nothing else."""

from __future__ import annotations

import inspect
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from apportion.errors import InputError, listing, shown, shown_number, suggestion

__all__ = [
    "PLACEMENT",
    "check_instance",
    "check_options",
    "checked_seed",
    "name_of",
    "named_options",
    "short_form",
    "true_or_false",
    "unit_of",
    "whole_number",
]

PLACEMENT = frozenset({"device", "dtype", "memory_budget"})
"""Arguments that every backend's ``load`` takes; they are arguments of ``Explainer``, not options of a backend."""
RESERVED = frozenset({"budget", "rng"})
"""Keyword arguments that apportion passes to every method or metric; they are not options."""


def whole_number(name: str, value: object, *, least: int) -> int:
    """Convert an argument or option to an ``int``; NumPy integers are accepted too.

    Raises:
        InputError: the value is not a whole number, is below ``least``, or is 2^63 or more.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name}={shown(value)} must be a whole number of at least {least}.")
    number = int(value)
    if number < least:
        raise InputError(f"{name}={shown_number(number)} must be a whole number of at least {least}.")
    if number >= 2**63:
        raise InputError(f"{name}={shown_number(number)} must be below 2^63.")
    return number


def true_or_false(name: str, value: object) -> bool:
    """Check an argument or option that is either true or false.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name}={shown(value)} must be True or False.")
    return value


def checked_seed(seed: object) -> int:
    """Check the seed of a generator.

    Raises:
        InputError: the seed is not a whole number from 0 to 2^63 − 1.
    """
    return whole_number("seed", seed, least=0)


def check_instance(name: str, given: object) -> None:
    """Refuse a class where an object of it is needed.

    Raises:
        InputError: the argument is a class.
    """
    if isinstance(given, type) and given.__module__ == "builtins":
        raise InputError(f"{name}={given.__name__} is a class of Python. Pass a name, or an object of your own.")
    if isinstance(given, type):
        raise InputError(f"{name}={given.__name__} is a class; pass an instance: {name}={given.__name__}().")


def name_of(thing: object) -> str:
    """The name of an object that was passed in place of a registered name: its own, or that of its class."""
    return str(getattr(thing, "name", None) or type(thing).__name__)


def unit_of(function: object, name: str) -> str:
    """Unit of the values of a target function: what it states, or else its name."""
    return str(getattr(function, "unit", name))


def named_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options that a function declares, in order."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in RESERVED}


def check_options(
    owner: str, function: Callable[..., Any], options: Mapping[str, object], apart: Set[str] = frozenset()
) -> None:
    """Reject options that a function does not declare, even if a catch-all parameter would accept them.

    Args:
        owner: name of the function's owner, for the message, such as ``"method 'shapley'"``.
        function: function that will be called with the options.
        options: options that the user gave.
        apart: keyword-only parameters that are not options.

    Raises:
        InputError: an option is unknown; the message lists the available ones.
    """
    known = [name for name in named_options(function) if name not in apart]
    for option in options:
        if option not in known:
            raise InputError(
                f"The {owner} has no option {option!r}. {suggestion(option, known)}"
                f"Its options: {listing(known) or 'none'}."
            )


def short_form(text: str, options_of: Callable[[str], Iterable[str]]) -> tuple[str, dict[str, Any]]:
    """Split the short form of a name and its options: ``"grid:4x6"``, ``"slic:40,compactness=20"``, ``"patches"``.

    Args:
        text: the short form. Values after the colon are those of the options in order, unless they are named.
        options_of: returns the names of the options of a name.

    Raises:
        InputError: there are more values than options, or an option is given twice.
    """
    name, _, given = text.strip().partition(":")
    if not given:
        return name, {}
    known = list(options_of(name))
    found: dict[str, Any] = {}
    for place, part in enumerate(re.split(r",|(?<=\d)x(?=\d)", given)):
        option, equals, value = part.partition("=")
        if not equals:
            if place >= len(known):
                raise InputError(f"{text!r} has more values than {name!r} has options ({listing(known) or 'none'}).")
            option, value = known[place], part
        if option.strip() in found:
            raise InputError(f"{text!r} gives the option {option.strip()!r} twice.")
        found[option.strip()] = _plain_value(value.strip())
    return name, found


def _plain_value(text: str) -> object:
    """A number, if the text is one, or else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
