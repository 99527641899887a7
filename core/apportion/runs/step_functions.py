"""The target functions that a call asks to record for each target token (``step_scores=``), resolved by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from apportion.errors import InputError, shown
from apportion.protocols.backend import Session
from apportion.protocols.request import StepFunction
from apportion.protocols.targets import Needs, TargetFunction
from apportion.runs.target_functions import check_scores, made_target_function

if TYPE_CHECKING:
    from apportion.hooks.registry import Registry
    from apportion.rendering.renderer import Renderer

__all__ = ["StepFunctions", "step_functions"]

EXAMPLE = '["prob", ("kl_divergence", {"reference": "empty"})]'


@dataclass(frozen=True, slots=True)
class StepFunctions:
    """Step functions whose reference prompts are not rendered yet."""

    functions: tuple[StepFunction, ...]

    @property
    def by_function(self) -> dict[str, TargetFunction]:
        """The target functions by their names, for messages."""
        return {one.target_fn_name: one.target_fn for one in self.functions}

    def on(self, renderer: Renderer) -> tuple[StepFunction, ...]:
        """The step functions with the reference prompts of one prompt."""
        return tuple(
            replace(one, reference=renderer.reference(getattr(one.target_fn, "reference", None)))
            for one in self.functions
        )


def step_functions(given: object, targets: Registry, session: Session) -> StepFunctions:
    """Resolve the argument ``step_scores``.

    Args:
        given: ``None``; or a list of target functions, each alone or in a pair with its options; or a dict of these by
            names of the user's own.
        targets: the registered target functions.
        session: session that will give the scores.

    Raises:
        UnknownNameError: no target function has this name.
        InputError: an entry cannot be read, options do not fit, or two scores have one name.
        CapabilityError: a function needs scores that the session does not give.
    """
    found: dict[str, StepFunction] = {}
    for own_name, entry in _entries(given):
        function, options = _pair(entry)
        if not isinstance(function, str) and not callable(function):
            raise InputError(
                f"step_scores= contains {shown(function)}, which is neither the name of a target function nor a "
                f"function. Write a list such as {EXAMPLE}."
            )
        name, made = made_target_function(
            targets, function, options, name="a step score", options_name="options of a step score"
        )
        check_scores(session, name, made)
        if made.needs is Needs.TEXT:
            raise InputError(f"The step score {name!r} reads whole texts, and has no value for each target token.")
        key = name if own_name is None else own_name
        if key in found:
            raise InputError(
                f"step_scores= has {key!r} twice. Name them in a dict: "
                f"step_scores={{'first': {name!r}, 'second': ({name!r}, {{…}})}}."
            )
        found[key] = StepFunction(key, name, made, options)
    return StepFunctions(tuple(found.values()))


def _entries(given: object) -> Iterator[tuple[str | None, object]]:
    """The entries, each with the name that the user gave it."""
    if given is None:
        return
    if isinstance(given, str):
        yield None, given
    elif isinstance(given, Mapping):
        for name, entry in given.items():
            if not isinstance(name, str) or not name:
                raise InputError(f"step_scores={shown(given)} must have names as keys; {name!r:.40} is none.")
            yield name, entry
    elif isinstance(given, Sequence):
        if len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], Mapping):
            raise InputError(
                f"step_scores={shown(given)} is one score with its options; write step_scores=[{shown(given)}]."
            )
        yield from ((None, entry) for entry in given)
    else:
        raise InputError(
            f"step_scores={shown(given)} must be a list of target functions, such as {EXAMPLE}, or a dict of them by "
            "name."
        )


def _pair(entry: object) -> tuple[object, Mapping[str, object]]:
    """A target function and its options."""
    if isinstance(entry, tuple | list):
        if len(entry) != 2 or not isinstance(entry[1], Mapping):
            raise InputError(
                f"The step score {shown(entry)} must be a target function, or a pair of its name and a dict of "
                f"options, as in {EXAMPLE}."
            )
        return entry[0], dict(entry[1])
    return entry, {}
