"""Names of modules that a user writes, with wildcards, and the modules that they stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from apportion.errors import InputError, counted, listing, shown, suggestion

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Layers", "checked_layers", "input_embeddings", "matching"]

Layers = str | Sequence[str] | None
"""A name of a module, a pattern, several of them, or ``None`` for the input embeddings."""

MANY = "**"
"""A part of a pattern that stands for any number of parts of a name."""


def checked_layers(layers: object, option: str = "layers") -> tuple[str, ...] | None:
    """Check the type of an option that names modules; a single name becomes a tuple of one.

    Raises:
        InputError: it is not a name, names, or ``None``.
    """
    if layers is None:
        return None
    names = [layers] if isinstance(layers, str) else layers
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        number = next((one for one in (names if isinstance(names, Sequence) else [names]) if type(one) is int), 0)
        raise InputError(
            f"{option}={shown(layers)} must be the name of a module such as 'model.layers.{number}' or "
            f"'model.layers.{number}.mlp', a pattern such as '**.mlp', or a list of these."
        )
    return tuple(names)


def matching(
    layers: tuple[str, ...] | None, modules: Mapping[str, nn.Module], option: str = "layers"
) -> tuple[str, ...]:
    """The names of the modules that are meant: in the order given, and those of a pattern in the model's order.

    Args:
        layers: names and patterns, as ``checked_layers`` returns them; ``None`` for the input embeddings.
        modules: all modules of the model, by name.
        option: name of the option that names them, for messages.

    Raises:
        InputError: a name or pattern matches no module.
    """
    if layers is None:
        return (input_embeddings(modules),)
    found: dict[str, None] = {}
    for pattern in layers:
        here = [pattern] if pattern in modules else [name for name in modules if _matches(pattern, name)]
        if not here:
            raise InputError(_unmatched(pattern, modules, option))
        found |= dict.fromkeys(here)
    return tuple(found)


def input_embeddings(modules: Mapping[str, nn.Module]) -> str:
    """The name of the module that embeds tokens.

    Raises:
        InputError: the model does not say which one it is.
    """
    # Of an encoder–decoder model, the embeddings of the prompt.
    for module in [*(module for name, module in modules.items() if _last(name) == "encoder"), *modules.values()]:
        ask = getattr(module, "get_input_embeddings", None)
        layer = ask() if callable(ask) else None
        if layer is not None:
            return next(name for name, known in modules.items() if known is layer)
    raise InputError(
        f"The model does not say which module embeds tokens. Name it: layers=…, one of {listing(modules)}."
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _matches(pattern: str, name: str) -> bool:
    """True if a pattern stands for a name; ``*`` stands for one part of a name between dots, or for some of it."""
    return _parts_match(pattern.split("."), name.split("."))


def _parts_match(pattern: list[str], name: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == MANY:
        return any(_parts_match(pattern[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _parts_match(pattern[1:], name[1:])


def _unmatched(pattern: str, modules: Mapping[str, nn.Module], option: str) -> str:
    """A message for a name or pattern without a module; numbered modules are listed once, as a pattern."""
    general = dict.fromkeys(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name) for name in modules)
    numbered = re.search(r"(?:^|\.)\d+(?:\.|$)", pattern)
    inside = [name for name in modules if _matches(f"{MANY}.{pattern}", name)]
    if inside:
        meant = inside[0] if len(inside) == 1 else f"{MANY}.{pattern}"
        close = f"Did you mean {meant!r}? "
    else:
        close = suggestion(pattern, modules if numbered else [*general, *modules])
    what = "matches no module" if re.search(r"[*?\[]", pattern) else "is not a module"
    return (
        f"{option}: {pattern!r} {what} of this model, which has {counted(len(modules), 'module')}. {close}"
        f"Available: {listing(general)}."
    )
