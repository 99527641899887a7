"""Target functions made from what users give: names with options, objects, and plain functions of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError, InputError, listing, shown
from apportion.options import check_instance, name_of
from apportion.protocols.backend import Capability, Session
from apportion.protocols.targets import Needs, TargetFunction
from apportion.scoring.logits_target import OfLogits

if TYPE_CHECKING:
    from apportion.hooks.registry import Registry

__all__ = ["check_contrast", "check_scores", "compares_with_contrast", "made_target_function"]


def made_target_function(
    targets: Registry, given: object, options: object, *, name: str = "target_fn", options_name: str = "target_options"
) -> tuple[str, TargetFunction]:
    """Make a target function, and find its name.

    Args:
        targets: the registered target functions.
        given: a name, a ``TargetFunction``, or a function of logits.
        options: options of a named one.
        name: name of the argument, for messages.
        options_name: name of the argument with the options, for messages.

    Raises:
        UnknownNameError: no target function has this name.
        InputError: this is none of these, or the options do not fit.
    """
    if not isinstance(options, Mapping) or not all(isinstance(option, str) for option in options):
        raise InputError(f"{options_name}={shown(options)} must be a dict, such as {{'top_k': 20}}.")
    if isinstance(given, str):
        return given, _ready(given, targets.get(given).make(**options))
    if options:
        raise InputError(
            f"{options_name}={shown(dict(options))} requires the name of a target function; an object is given its "
            "options when it is made."
        )
    if isinstance(given, TargetFunction) and not isinstance(given, type):
        return name_of(given), _ready(name_of(given), given)
    if callable(given) and not isinstance(given, type):
        made = OfLogits(given)
        return made.name, made
    check_instance(name, given)
    raise InputError(f"{name}={shown(given)} must be a name, a TargetFunction (with `needs`), or a function of logits.")


def _ready(name: str, function: TargetFunction) -> TargetFunction:
    """The function, if it lacks nothing.

    Raises:
        InputError: it does.
    """
    if lacking := getattr(function, "lacking", ""):
        raise InputError(f"The target function {name!r} {lacking}.")
    return function


def compares_with_contrast(function: object) -> bool:
    """True if a target function compares the target with another one, the contrast."""
    return bool(getattr(function, "contrastive", False))


def check_contrast(targets: Registry, functions: Mapping[str, TargetFunction], contrast: object) -> None:
    """Refuse a contrast that nothing is compared with, and a function that lacks one.

    Args:
        targets: the registered target functions.
        functions: the explained function first, then those of the step scores, by name.
        contrast: what the user gave; ``None`` for nothing.

    Raises:
        InputError: one of these.
    """
    contrastive = [name for name, function in functions.items() if compares_with_contrast(function)]
    if contrastive and contrast is None:
        raise InputError(f"The target function {contrastive[0]!r} compares with another target; give contrast=.")
    if contrast is not None and not contrastive:
        others = [entry.name for entry in targets if compares_with_contrast(entry.load())]
        raise InputError(
            f"contrast={shown(contrast)} is given, but the target function {next(iter(functions))!r} is not "
            f"contrastive. Contrastive ones: {listing(others)}."
        )


def check_scores(session: Session, name: str, function: TargetFunction) -> None:
    """Refuse a target function whose scores of tokens the session cannot give.

    Raises:
        CapabilityError: the function needs logits or log-probabilities, and the session has none.
    """
    if function.needs is not Needs.TEXT and Capability.LOG_PROBS not in session.capabilities:
        why = getattr(session, "log_probs_refusal", "")
        raise CapabilityError(
            f"The target function {name!r} needs {function.needs.value}, and {session.info.model or 'this model'} "
            f"scores no given tokens{f': {why}' if why else ''}. Choose a target function of the texts that it writes, "
            "such as target_fn='chrf'; `apportion targets` lists them."
        )
    if function.needs is Needs.LOGITS and Capability.LOGITS not in session.capabilities:
        raise CapabilityError(
            f"The target function {name!r} needs logits, which the backend {session.info.backend!r} does not provide. "
            f"It provides: {listing(sorted(one.value for one in session.capabilities))}."
        )
