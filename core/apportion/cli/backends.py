"""``apportion backends``: the backends, and the reasons why some do not work here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from apportion.cli import exits
from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.errors import PluginError
from apportion.hooks.manager import load_plugins
from apportion.hooks.registry import Entry
from apportion.options import PLACEMENT, named_options

__all__ = ["app"]

app = sub_app("The execution backends: `list` (the default), `show NAME`, `check`.")

Facts = dict[str, Any]


@app.command("list")
def list_backends(as_json: JsonFlag = False) -> None:
    """List every backend: whether it works here, its devices, and its priority for `--backend auto`."""
    found = _all_facts()
    if as_json:
        print_json(found)
        return
    rows = [(f["name"], _state(f), ", ".join(f["devices"]), str(f["priority"]), _remark(f)) for f in found]
    print_table(("backend", "available", "devices", "priority", "remark"), rows)


@app.command("show")
def show_backend(name: Annotated[str, typer.Argument(help="Name of a backend.")], as_json: JsonFlag = False) -> None:
    """Show one backend."""
    facts = _facts(load_plugins()["backends"].get(name))
    if as_json:
        print_json(facts)
        return
    out = console()
    out.print(Text.assemble((facts["name"], "bold"), " — ", facts["summary"]))
    lines = {
        "available": Text.assemble(_state(facts), " ", _remark(facts)),
        "devices": ", ".join(facts["devices"]) or "unknown",
        "capabilities": ", ".join(facts["capabilities"]) or "unknown",
        "options": ", ".join(facts["options"]) or "none",
        "priority": str(facts["priority"]),
        "plugin": facts["plugin"],
    }
    for label, text in lines.items():
        out.print(Text.assemble((f"{label:<13}", "bold"), text))


@app.command("check")
def check_backends(
    name: Annotated[str | None, typer.Argument(help="Name of the backend that must work; without it, any may.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Exit with 0 if a backend (or the named one) works here, and with 1 otherwise."""
    found = _all_facts() if name is None else [_facts(load_plugins()["backends"].get(name))]
    usable = [facts for facts in found if facts["available"]]
    if as_json:
        print_json({"ok": bool(usable), "backends": found})
    else:
        print_table(("backend", "available", "remark"), [(f["name"], _state(f), _remark(f)) for f in found])
    if not usable:
        raise typer.Exit(exits.FAILED)


def _all_facts() -> list[Facts]:
    found = [_facts(entry) for entry in load_plugins()["backends"]]
    return sorted(found, key=lambda facts: -(facts["priority"] or 0))


def _facts(entry: Entry) -> Facts:
    """Collect the facts about a backend; one that cannot even be made is not available."""
    # Imported here: this takes seconds.
    from apportion.models.select_backend import availability_of

    facts: Facts = {"name": entry.name, "summary": entry.summary, "plugin": entry.plugin}
    try:
        backend = entry.make()
    except PluginError as error:
        nothing: Facts = {"devices": [], "capabilities": [], "options": [], "priority": None}
        return facts | nothing | {"available": False, "detail": "", "reason": str(error), "hint": ""}
    state = availability_of(backend)
    return facts | {
        "devices": list(backend.info.devices),
        "capabilities": sorted(capability.value for capability in backend.info.capabilities),
        "options": [name for name in named_options(backend.load) if name not in PLACEMENT],
        "priority": backend.info.priority,
        "available": not hasattr(state, "reason"),
        "detail": getattr(state, "detail", ""),
        "reason": getattr(state, "reason", ""),
        "hint": getattr(state, "hint", ""),
    }


def _state(facts: Facts) -> Text:
    return Text("yes", "green") if facts["available"] else Text("no", "red")


def _remark(facts: Facts) -> str:
    if facts["available"]:
        return str(facts["detail"])
    return f"{facts['reason']}. {facts['hint']}" if facts["hint"] else str(facts["reason"])
