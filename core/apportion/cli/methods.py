"""``apportion methods``: the attribution methods that are installed."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from rich.text import Text

from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.docstrings import description, parameter_notes
from apportion.options import named_options
from apportion.plugins import load_plugins

__all__ = ["app"]

app = sub_app("The attribution methods: `list` (the default), `show NAME`.")


@app.command("list")
def list_methods(as_json: JsonFlag = False) -> None:
    """Names and summaries of the methods."""
    entries = list(load_plugins()["methods"])
    if as_json:
        print_json([{"name": e.name, "summary": e.summary, "plugin": e.plugin} for e in entries])
        return
    print_table(("method", "plugin", "summary"), [(e.name, e.plugin, e.summary) for e in entries])


@app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(help="A method's name.")],
    as_json: JsonFlag = False,
) -> None:
    """What a method estimates, what it needs, and its options with their defaults."""
    facts = method_facts(name)
    if as_json:
        print_json(facts)
        return
    out = console()
    out.print(Text.assemble((facts["name"], "bold"), " — ", facts["summary"]))
    out.print(Text(f"\n{facts['description']}\n"))
    out.print(Text.assemble(("estimand ", "bold"), facts["estimand"]))
    out.print(Text.assemble(("requires ", "bold"), ", ".join(facts["requires"]) or "nothing beyond log-probabilities"))
    out.print(Text.assemble(("plugin   ", "bold"), facts["plugin"]))
    if not facts["options"]:
        out.print(Text.assemble(("options  ", "bold"), "none"))
        return
    out.print()
    rows = [(o["name"], o["type"], _default(o), o["help"]) for o in facts["options"]]
    print_table(("option", "type", "default", "meaning"), rows)


def method_facts(name: str) -> dict[str, Any]:
    """Everything to know about a method, as plain values.

    Raises:
        UnknownNameError: no method of that name.
        PluginError: it cannot be imported.
    """
    entry = load_plugins()["methods"].get(name)
    method = entry.make()
    notes = parameter_notes(method.run)
    return {
        "name": entry.name,
        "summary": entry.summary,
        "plugin": entry.plugin,
        "estimand": method.estimand,
        "requires": sorted(capability.value for capability in method.requires),
        "description": description(type(method)),
        "options": [_option(parameter, notes) for parameter in named_options(method.run).values()],
    }


def _option(parameter: inspect.Parameter, notes: dict[str, str]) -> dict[str, Any]:
    empty = parameter.default is inspect.Parameter.empty
    plain = None if empty or isinstance(parameter.default, str | int | float | bool | None) else str(parameter.default)
    return {
        "name": parameter.name,
        "type": _type(parameter.annotation),
        "required": empty,
        "default": None if empty else plain or parameter.default,
        "help": notes.get(parameter.name, ""),
    }


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "any"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _default(option: dict[str, Any]) -> str:
    return "(required)" if option["required"] else repr(option["default"])
