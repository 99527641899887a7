"""``apportion methods``, ``targets``, ``segmenters`` and so on: one command for each kind of extension."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.errors import PluginError
from apportion.hooks.docstrings import description, parameter_notes
from apportion.hooks.manager import load_plugins
from apportion.hooks.registry import REQUESTED, Entry
from apportion.options import named_options

__all__ = ["KINDS", "Kind", "facts_of", "kind_app"]

Facts = dict[str, Any]
HEADS = {"requires": "needs"}
"""Heads of columns that are not the names of their facts."""
Name = Annotated[str, typer.Argument(help="A name that `list` shows.")]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of extension.

    Attributes:
        registry: name of the plugins' registry of this kind.
        nouns: plural in help texts.
        facts: returns facts about an object that only this kind has.
        options: returns the function of an object whose keyword-only parameters are the options; ``None`` if it is the
            factory.
        listed: the facts that lists show too.
    """

    registry: str
    nouns: str
    facts: Callable[[Any], Facts] = lambda made: {}
    options: Callable[[Any], Callable[..., Any]] | None = None
    listed: tuple[str, ...] = ()


def _of_method(made: Any) -> Facts:
    needs = sorted(capability.value for capability in made.requires)
    return {
        "family": getattr(made, "family", "") or _family(needs),
        "estimand": made.estimand,
        "requires": needs,
        "cost": getattr(made, "cost", ""),
    }


def _family(needs: Sequence[str]) -> str:
    """The family of a method that does not say it, from the capabilities that it needs."""
    if "gradients" in needs:
        return "gradient"
    return "internals" if {"hidden_states", "attentions"} & set(needs) else "perturbation"


def _of_target(made: Any) -> Facts:
    return {
        "needs": made.needs.value,
        "contrastive": bool(getattr(made, "contrastive", False)),
        "unit": getattr(made, "unit", None),
    }


KINDS: Mapping[str, Kind] = {
    "methods": Kind(
        "methods",
        "attribution methods",
        _of_method,
        lambda made: made.run,
        listed=("family", "estimand", "requires", "cost"),
    ),
    "samplers": Kind("samplers", "samplers of coalitions"),
    "targets": Kind("targets", "target functions", _of_target),
    "metrics": Kind(
        "metrics",
        "faithfulness metrics",
        lambda made: {"better": "higher" if made.higher_is_better else "lower"},
        lambda made: made.measure,
    ),
    "views": Kind("visualizers", "views of a result", options=lambda made: made.render),
    "segmenters": Kind("segmenters", "segmenters of pictures"),
    "fills": Kind("fills", "fills of absent regions of pictures"),
}
"""Kinds by the name of their command."""


def kind_app(command: str) -> typer.Typer:
    """The commands of one kind: ``list``, the default, and ``show NAME``."""
    kind = KINDS[command]
    app = sub_app(f"The {kind.nouns}: `list` (the default), `show NAME`.")

    what = "with their summaries" + (", families, estimands, needs and costs" if kind.listed else "")

    @app.command("list", help=f"List the {kind.nouns} {what}.")
    def list_all(as_json: JsonFlag = False) -> None:
        entries = list(load_plugins()[kind.registry])
        facts = [_listed(kind, entry) for entry in entries]
        if as_json:
            own = ({"name": e.name, "summary": e.summary, "plugin": e.plugin} for e in entries)
            print_json([one | more for one, more in zip(own, facts, strict=True)])
        elif kind.listed:
            _print_list(kind, entries, facts)
        else:
            rows = [(e.name, e.plugin, e.summary) for e in entries]
            print_table((REQUESTED[kind.registry], "plugin", "summary"), rows)

    @app.command("show", help=f"Show one of the {kind.nouns}, and its options with their defaults.")
    def show(name: Name, as_json: JsonFlag = False) -> None:
        facts = facts_of(command, name)
        if as_json:
            print_json(facts)
        else:
            _print(facts)

    return app


def _listed(kind: Kind, entry: Entry) -> Facts:
    """The facts of an extension that its list shows; an error, if it cannot be loaded."""
    if not kind.listed:
        return {}
    try:
        found = kind.facts(entry.make())
    except PluginError as error:
        return {"error": str(error)}
    return {name: found[name] for name in kind.listed}


def _print_list(kind: Kind, entries: Sequence[Entry], facts: Sequence[Facts]) -> None:
    """Print a list with the facts below each summary."""
    rows = [(e.name, _below(e.summary, more)) for e, more in zip(entries, facts, strict=True)]
    heads = ", ".join(HEADS.get(name, name) for name in kind.listed)
    print_table((REQUESTED[kind.registry], f"summary; {heads}"), rows, folded=True)


def _below(summary: str, facts: Facts) -> Text:
    """A summary, and below it the facts, or why there are none."""
    if "error" in facts:
        return Text.assemble(summary, ("\n" + facts["error"], "red"))
    said = [f"needs {', '.join(value)}" if name == "requires" else value for name, value in facts.items() if value]
    return Text.assemble(summary, ("\n" + "; ".join(said), "dim"))


def facts_of(command: str, name: str) -> Facts:
    """Collect the facts about one extension, as plain values.

    Raises:
        UnknownNameError: none has this name.
        PluginError: it cannot be imported.
    """
    kind = KINDS[command]
    entry = load_plugins()[kind.registry].get(name)
    made = entry.make()
    function = entry.load() if kind.options is None else kind.options(made)
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
    out = console(folded=True)
    out.print(Text.assemble((facts["name"], "bold"), " — ", facts["summary"]))
    out.print(Text(f"\n{_unfolded(facts['description'])}\n"))
    special = {k: v for k, v in facts.items() if k not in ("name", "summary", "description", "options", "plugin")}
    lines = {**special, "plugin": facts["plugin"]} | ({} if facts["options"] else {"options": []})
    grid = Table.grid(padding=(0, 1, 0, 0))
    for fact, value in lines.items():
        grid.add_row(Text(fact, "bold"), Text(_words(fact, value)))
    out.print(grid)
    if facts["options"]:
        out.print()
        rows = [(o["name"], o["type"], _default(o), o["help"]) for o in facts["options"]]
        print_table(("option", "type", "default", "meaning"), rows, folded=True)


def _unfolded(text: str) -> str:
    """A text with a line for each paragraph, so that it can be folded to any width; indented lines stay."""
    return re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", text)


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
