"""Prompts of types that plugins register: ``--input NAME`` with a text, and ``--input-option``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from apportion.cli.parse import json_pairs, usage_error
from apportion.errors import listing
from apportion.hooks.manager import installed_plugins

__all__ = ["plugin_prompt"]


def plugin_prompt(name: str, text: str, options: Sequence[str]) -> object:
    """Make a prompt of a registered type from a text.

    Raises:
        UnknownNameError: no type has this name.
        typer.BadParameter: the type does not take a text, or these options.
        PluginError: its class cannot be imported.
        InputError: the type refuses the text.
    """
    made_by = installed_plugins()["inputs"].get(name).load()
    given = json_pairs("--input-option", options, "comments=false")
    signature = inspect.signature(made_by)
    first, *rest = signature.parameters.values()
    for option in given:
        if option not in signature.parameters or option == first.name:
            known = listing(parameter.name for parameter in rest)
            usage_error("--input-option", f"the input {name!r} has no option {option!r}. Its options: {known}.")
    missing = [p.name for p in rest if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [option for option in missing if option not in given]
    if missing:
        usage_error(
            "--input", f"the input {name!r} also needs {listing(missing)}; write --input-option {missing[0]}=…."
        )
    return made_by(text, **given)
