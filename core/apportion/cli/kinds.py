"""``apportion methods``, ``targets``, ``samplers``, ``metrics``, ``views``: one command for each kind of extension."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.hooks.docstrings import description, parameter_notes
from apportion.hooks.manager import load_plugins
from apportion.hooks.registry import REQUESTED
from apportion.options import named_options

__all__ = ["KINDS", "Kind", "facts_of", "kind_app"]

Facts = dict[str, Any]
Name = Annotated[str, typer.Argument(help="A name that `list` shows.")]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of extension.

    Attributes:
        registry: name of the plugins' registry of this kind.
        nouns: plural in help texts.
        facts: returns facts about an object that only this kind has.
        options: returns the function of an object whose keyword-only parameters are the options.
    """

    registry: str
    nouns: str
    facts: Callable[[Any], Facts] = lambda made: {}
    options: Callable[[Any], Callable[..., Any]] = type


def _of_method(made: Any) -> Facts:
    return {"estimand": made.estimand, "requires": sorted(capability.value for capability in made.requires)}


def _of_target(made: Any) -> Facts:
    return {
        "needs": made.needs.value,
        "contrastive": bool(getattr(made, "contrastive", False)),
        "unit": getattr(made, "unit", None),
    }


KINDS: Mapping[str, Kind] = {
    "methods": Kind("methods", "attribution methods", _of_method, lambda made: made.run),
    "samplers": Kind("samplers", "samplers of coalitions"),
    "targets": Kind("targets", "target functions", _of_target),
    "metrics": Kind(
        "metrics",
        "faithfulness metrics",
        lambda made: {"better": "higher" if made.higher_is_better else "lower"},
        lambda made: made.measure,
    ),
    "views": Kind("visualizers", "views of a result", options=lambda made: made.render),
}
"""Kinds by the name of their command."""


def kind_app(command: str) -> typer.Typer:
    """The commands of one kind: ``list``, the default, and ``show NAME``."""
    kind = KINDS[command]
    app = sub_app(f"The {kind.nouns}: `list` (the default), `show NAME`.")

    @app.command("list", help=f"List the {kind.nouns} with their summaries.")
    def list_all(as_json: JsonFlag = False) -> None:
        entries = list(load_plugins()[kind.registry])
        if as_json:
            print_json([{"name": e.name, "summary": e.summary, "plugin": e.plugin} for e in entries])
            return
        print_table((REQUESTED[kind.registry], "plugin", "summary"), [(e.name, e.plugin, e.summary) for e in entries])

    @app.command("show", help=f"Show one of the {kind.nouns}, and its options with their defaults.")
    def show(name: Name, as_json: JsonFlag = False) -> None:
        facts = facts_of(command, name)
        if as_json:
            print_json(facts)
        else:
            _print(facts)

    return app


def facts_of(command: str, name: str) -> Facts:
    """Collect the facts about one extension, as plain values.

    Raises:
        UnknownNameError: none has this name.
        PluginError: it cannot be imported.
    """
    kind = KINDS[command]
    entry = load_plugins()[kind.registry].get(name)
    made = entry.make()
    function = kind.options(made)
    notes = parameter_notes(function)
    return {
        "name": entry.name,
        "summary": entry.summary,
        "plugin": entry.plugin,
        **kind.facts(made),
        "description": description(type(made)),
        "options": [_option(parameter, notes) for parameter in named_options(function).values()],
    }


def _print(facts: Facts) -> None:
    out = console()
    out.print(Text.assemble((facts["name"], "bold"), " — ", facts["summary"]))
    out.print(Text(f"\n{facts['description']}\n"))
    special = {k: v for k, v in facts.items() if k not in ("name", "summary", "description", "options", "plugin")}
    lines = {**special, "plugin": facts["plugin"]} | ({} if facts["options"] else {"options": []})
    width = max(map(len, lines))
    for fact, value in lines.items():
        out.print(Text.assemble((f"{fact:{width}} ", "bold"), _words(fact, value)))
    if facts["options"]:
        out.print()
        rows = [(o["name"], o["type"], _default(o), o["help"]) for o in facts["options"]]
        print_table(("option", "type", "default", "meaning"), rows)


def _words(fact: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or ("nothing beyond log-probabilities" if fact == "requires" else "none")
    return str(value)


def _option(parameter: inspect.Parameter, notes: dict[str, str]) -> Facts:
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


def _default(option: Facts) -> str:
    return "(required)" if option["required"] else repr(option["default"])
