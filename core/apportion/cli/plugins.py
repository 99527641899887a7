"""``apportion plugins``: what is loaded, what failed and why, and what is switched off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.cli.plugin_check import faults_of
from apportion.errors import unknown_name
from apportion.plugins import AUTOLOAD_VARIABLE, DISABLE_VARIABLE, Plugins, load_plugins
from apportion.registry import Entry

__all__ = ["app"]

app = sub_app("The plugins: `list` (the default), `show NAME`, `check`.")

LOADED, FAILED, DISABLED, OFF = "loaded", "failed", "disabled", "off"
_STYLES = {LOADED: "green", FAILED: "bold red", DISABLED: "dim", OFF: "dim"}
_AS_BY_DEFAULT = {"progress": True}


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin, whatever became of it."""

    name: str
    state: str
    distribution: str = ""
    hooks: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    error: str = ""
    switch: str = ""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "state": self.state,
            "distribution": self.distribution,
            "hooks": list(self.hooks),
            "registers": [{"kind": e.kind, "name": e.name, "summary": e.summary} for e in self.entries],
            "error": self.error,
        }


@app.command("list")
def list_plugins(as_json: JsonFlag = False) -> None:
    """Every plugin: loaded, failed (with the error), off or disabled."""
    rows = _rows(load_plugins(switches=_AS_BY_DEFAULT))
    if as_json:
        print_json([row.facts() for row in rows])
        return
    shown = [(row.name, _state(row), row.distribution, row.error or _registered(row)) for row in rows]
    print_table(("plugin", "state", "distribution", "registers, or why it failed"), shown)
    if os.environ.get(AUTOLOAD_VARIABLE) == "0":
        console().print(f"\nInstalled plugins are not loaded: {AUTOLOAD_VARIABLE}=0.")


@app.command("show")
def show_plugin(name: Annotated[str, typer.Argument(help="A plugin's name.")], as_json: JsonFlag = False) -> None:
    """The hooks of one plugin and everything it registers, or why it failed."""
    row = _row(_rows(load_plugins(switches=_AS_BY_DEFAULT)), name)
    if as_json:
        print_json(row.facts())
        return
    out = console()
    out.print(Text.assemble((row.name, "bold"), " ", _state(row), f" {row.distribution}"))
    if row.error:
        out.print(Text(row.error))
    if row.hooks:
        out.print(Text.assemble(("hooks ", "bold"), ", ".join(row.hooks)))
    if row.entries:
        out.print()
        print_table(("kind", "name", "summary"), [(e.kind, e.name, e.summary) for e in row.entries])


@app.command("check")
def check_plugins(
    name: Annotated[str | None, typer.Argument(help="Check this one only.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Import everything that the plugins register; exit with 1 if one failed or something cannot be made."""
    rows = _rows(load_plugins(switches=_AS_BY_DEFAULT))
    rows = [row for row in rows if row.state in (LOADED, FAILED)] if name is None else [_row(rows, name)]
    faults = {row.name: _faults(row) for row in rows}
    broken = [plugin for plugin, found in faults.items() if found]
    if as_json:
        print_json({"ok": not broken, "plugins": [{"name": row.name, "faults": faults[row.name]} for row in rows]})
    else:
        for row in rows:
            _print_check(row, faults[row.name])
    if broken:
        raise typer.Exit(1)


def _rows(plugins: Plugins) -> list[Row]:
    """Failed plugins first: they are what one looks for."""
    failed = [Row(p.name, FAILED, p.distribution, error=p.error) for p in plugins.failed]
    loaded = [Row(p.name, LOADED, p.distribution, p.hooks, tuple(plugins.entries_of(p.name))) for p in plugins.loaded]
    off = [Row(name, OFF, "built-in", switch=switch) for name, switch in plugins.off.items()]
    return failed + loaded + off + [Row(name, DISABLED) for name in plugins.disabled]


def _row(rows: list[Row], name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    raise unknown_name("plugin", name, [row.name for row in rows])


def _faults(row: Row) -> list[str]:
    if row.state == DISABLED:
        return [f"it is disabled by {DISABLE_VARIABLE}"]
    if row.state == OFF:
        return []
    return [row.error] if row.error else faults_of(row.entries)


def _registered(row: Row) -> str:
    if row.switch:
        return f"nothing yet; turn it on with Explainer({row.switch}=…) or --{row.switch.replace('_', '-')}"
    kinds: dict[str, list[str]] = {}
    for entry in row.entries:
        kinds.setdefault(entry.kind, []).append(entry.name)
    if not kinds:
        return f"nothing; hooks {', '.join(row.hooks)}" if row.hooks else "nothing"
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items())


def _state(row: Row) -> Text:
    return Text(row.state, _STYLES[row.state])


def _print_check(row: Row, faults: list[str]) -> None:
    out = console()
    if not faults:
        out.print(Text.assemble(("ok      ", "green"), f"{row.name}: {len(row.entries)} imported"))
    for fault in faults:
        out.print(Text.assemble(("failed  ", "bold red"), f"{row.name}: {fault}"))
