"""Runs whose target function reads texts: their arguments, and the texts after their full prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError, InputError, shown
from apportion.options import whole_number
from apportion.protocols.backend import Capability, Session
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs, Target, TargetFunction
from apportion.scoring.writer import Writer, check_writes

if TYPE_CHECKING:
    from apportion.protocols.methods import Method
    from apportion.scoring.text_source import TextSource

__all__ = [
    "UNWRITTEN",
    "check_method",
    "check_target",
    "checked_samples",
    "needed_samples",
    "text_of_target",
    "writer_of",
]

UNWRITTEN = Target((0,), ("",), "")
"""Stands for a target until the model has written it."""

DRAWN = -1
"""Number of a sampled text that serves as the target, so that no text is compared with itself."""

ALONE = "texts are drawn at random, and one after each prompt does not show how much they vary; samples= measures it"

UNNEEDED = frozenset({Capability.GENERATE, Capability.TEXT, Capability.PREFIX_CACHE, Capability.IMAGES})
"""Capabilities that a method may require beside texts."""


def checked_samples(
    session: Session, name: str, function: TargetFunction, samples: object, *, attribute_generated: bool
) -> int:
    """The number of texts after each prompt; 0 if the target function reads none.

    Args:
        session: the session.
        name: name of the target function.
        function: the target function.
        samples: what the user gave; ``None`` for nothing.
        attribute_generated: the target's tokens are to be features.

    Raises:
        InputError: an argument does not suit the target function.
        CapabilityError: the session cannot write.
    """
    if function.needs is not Needs.TEXT:
        if samples is not None:
            raise InputError(
                f"samples={shown(samples)} is a number of texts that the model writes after each prompt, and the "
                f"target function {name!r} reads none. Write budget= for a number of evaluations."
            )
        return 0
    if attribute_generated:
        raise InputError(
            f"attribute_generated=True scores the tokens of the target, and the target function {name!r} gives values "
            "to whole texts only."
        )
    check_writes(session)
    return 1 if samples is None else whole_number("samples", samples, least=1)


def check_method(name: str, method: Method, function: str) -> None:
    """Refuse a method that looks inside the model, for a target function that reads texts.

    Raises:
        CapabilityError: the method does.
    """
    missing = method.requires - UNNEEDED
    if missing:
        raise CapabilityError(
            f"The method {name!r} needs {', '.join(sorted(one.value for one in missing))}, and the target function "
            f"{function!r} reads only the texts that the model writes. Choose a perturbation method."
        )


def check_target(function: TargetFunction, target: Target) -> None:
    """Refuse a target that a function of texts cannot compare with.

    Raises:
        InputError: it is one.
    """
    check = getattr(function, "check", None)
    if callable(check):
        check(target)


def writer_of(session: Session, generation: Mapping[str, object], seed: int) -> Writer:
    """The writer of texts with the options of a request."""
    options = {name: value for name, value in generation.items() if name != "stop"}
    stop = generation.get("stop", ())
    assert isinstance(stop, Sequence)
    return Writer(session, options, stop, seed)


def text_of_target(source: TextSource, prompt: ModelInput) -> str:
    """The text of a target that the model writes: the greedy one, or another one than those that are scored."""
    return source.uncounted(prompt, [DRAWN if source.writer.sampled else 0])[0]


def needed_samples(source: TextSource, prompt: ModelInput, samples: int) -> tuple[int, str]:
    """The number of texts that each prompt needs, and a note on it.

    Greedy texts that are alike after the full prompt show that the model answers the same each time.

    Args:
        source: gives texts.
        prompt: the full prompt.
        samples: number of texts that the user wants.
    """
    if source.writer.sampled:
        return samples, ALONE if samples == 1 else ""
    if samples == 1:
        return 1, ""
    different = len(set(source.uncounted(prompt, range(samples))))
    if different == 1:
        return (
            1,
            f"texts are greedy, and {samples} after the full prompt were alike, so that every other prompt has one",
        )
    return samples, f"texts are greedy, but {different} of {samples} after the full prompt were different"
