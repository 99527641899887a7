"""Checks of an extension without running it: its parts, signatures and documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from apportion.hooks.docstrings import description, parameter_notes
from apportion.options import named_options

__all__ = ["RUNNERS", "object_faults", "protocol_faults", "summary_faults"]

PARTS: Mapping[str, tuple[str, ...]] = {
    "samplers": ("sample",),
    "methods": ("estimand", "requires", "run"),
    "targets": ("needs", "__call__"),
    "visualizers": ("render",),
    "backends": ("info", "availability", "load"),
    "metrics": ("higher_is_better", "measure"),
    "segmenters": ("segment",),
    "fills": ("once", "fill"),
}
"""Attributes that an object of each kind must have."""

RUNNERS: Mapping[str, str] = {"methods": "run", "visualizers": "render", "metrics": "measure"}
"""The method whose keyword-only parameters are the options, for each kind."""

MADE_WITH_OPTIONS = frozenset({"segmenters", "fills"})
"""Kinds whose options are keyword-only parameters of the factory."""

_CALLS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "samplers": ("sample", ("n_features", "budget", "rng"), ()),
    "methods": ("run", ("game",), ("budget", "rng")),
    "targets": ("__call__", ("scores", "target"), ()),
    "visualizers": ("render", ("attribution",), ()),
    "backends": ("load", ("model",), ("device", "dtype", "memory_budget")),
    "metrics": ("measure", ("game", "values"), ("rng",)),
    "segmenters": ("segment", ("pixels", "processor"), ()),
    "fills": ("fill", ("pixels", "absent", "seed"), ()),
}
"""The call that apportion makes to each kind: function, positional arguments, keyword arguments."""

LONGEST_SUMMARY = 100


def summary_faults(summary: str) -> Iterator[str]:
    """Find faults in the summary that listings show."""
    if "\n" in summary:
        yield "its summary has several lines; it must be one line, for listings."
    elif len(summary) > LONGEST_SUMMARY:
        yield f"its summary has {len(summary)} characters; keep it under {LONGEST_SUMMARY}, for listings."


def object_faults(kind: str, made: object) -> list[str]:
    """Find faults of an object that a factory made. Each fault continues a sentence that begins with the object's name.

    Args:
        kind: kind of object, such as ``"methods"``.
        made: the object; for inputs, the prompt's class.
    """
    missing = _missing_parts(kind, made)
    return missing or [*protocol_faults(kind, made), *_documentation_faults(kind, made)]


def protocol_faults(kind: str, made: object) -> list[str]:
    """Find faults that would break a run: missing parts, wrong signatures, attributes of the wrong type."""
    return _missing_parts(kind, made) or [*_call_faults(kind, made), *_attribute_faults(kind, made)]


def _missing_parts(kind: str, made: object) -> list[str]:
    missing = [part for part in PARTS.get(kind, ()) if not hasattr(made, part)]
    return [f"is a {type(made).__name__} without {', '.join(map(repr, missing))}."] if missing else []


def _call_faults(kind: str, made: object) -> Iterator[str]:
    if kind not in _CALLS:
        return
    name, positional, keywords = _CALLS[kind]
    function = getattr(made, name)
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        call = ", ".join([*positional, *(f"{keyword}=…" for keyword in keywords)])
        yield f"cannot be called as {name}({call}): {error}."
    extras = list(inspect.signature(function).parameters.values())[len(positional) :]
    if kind in MADE_WITH_OPTIONS:
        extras += [p for p in inspect.signature(type(made)).parameters.values() if p.default is not p.empty]
    for extra in extras:
        if extra.kind is extra.POSITIONAL_OR_KEYWORD and extra.name not in keywords:
            yield f"has {extra.name!r} before the star; options are keyword-only parameters, after `*`."
    for option in _options(kind, made).values():
        if option.default is inspect.Parameter.empty:
            yield f"has an option {option.name!r} without a default; every option needs one."


def _attribute_faults(kind: str, made: Any) -> Iterator[str]:
    from apportion.protocols.backend import BackendInfo, Capability
    from apportion.protocols.targets import Needs

    if kind == "methods":
        if not isinstance(made.estimand, str) or not made.estimand.strip():
            yield f"must have a non-empty string as its estimand; it is {made.estimand!r}."
        requires = made.requires
        if not isinstance(requires, frozenset) or not all(isinstance(c, Capability) for c in requires):
            yield f"must have a frozenset of Capability as requires; it is {requires!r}."
        yield from _texts_expected(made, ("family", "cost"))
    elif kind == "samplers":
        named = getattr(made, "estimands", ())
        if not isinstance(named, tuple) or not all(isinstance(one, str) for one in named):
            yield f"must have a tuple of strings as estimands; it is {named!r}."
    elif kind == "targets":
        if not isinstance(made.needs, Needs):
            yield f"must have a Needs as needs; it is {made.needs!r}."
        yield from _texts_expected(made, ("label", "rise"))
    elif kind == "metrics" and not isinstance(made.higher_is_better, bool):
        yield f"must have True or False as higher_is_better; it is {made.higher_is_better!r}."
    elif kind == "fills" and not isinstance(made.once, bool):
        yield f"must have True or False as once; it is {made.once!r}."
    elif kind == "backends" and not isinstance(made.info, BackendInfo):
        yield f"must have a BackendInfo as info; it is {made.info!r}."


def _texts_expected(made: object, names: Sequence[str]) -> Iterator[str]:
    """Faults of optional attributes that must be strings."""
    for name in names:
        if not isinstance(getattr(made, name, ""), str):
            yield f"must have a string as its {name}; it is {getattr(made, name)!r}."


def _documentation_faults(kind: str, made: object) -> Iterator[str]:
    described = made if isinstance(made, type) else type(made)
    # Python sets the docstring of a dataclass without one to its signature.
    if not description(described) or description(described).startswith(f"{described.__name__}("):
        yield f"has no docstring on {described.__name__}; describe it in a sentence."
    notes = _notes(kind, made)
    place = f"{RUNNERS[kind]}()" if kind in RUNNERS else "its docstring"
    for option in _options(kind, made):
        if not notes.get(option):
            yield f"has an undocumented option {option!r}; describe it under 'Args:' in {place}."


def _options(kind: str, made: object) -> Mapping[str, inspect.Parameter]:
    function = _with_options(kind, made)
    return named_options(function) if function else {}


def _notes(kind: str, made: object) -> Mapping[str, str]:
    function = _with_options(kind, made)
    return parameter_notes(function) | parameter_notes(type(made)) if function else {}


def _with_options(kind: str, made: object) -> Callable[..., Any] | None:
    """The function whose keyword-only parameters are the options; ``None`` for kinds without options."""
    if kind in MADE_WITH_OPTIONS:
        return type(made)
    return getattr(made, RUNNERS[kind], None) if kind in RUNNERS else None
