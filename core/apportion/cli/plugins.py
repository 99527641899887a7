"""``apportion plugins``: the plugins that are loaded, have failed, or are switched off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from apportion.cli import exits
from apportion.cli.listing import JsonFlag, console, print_json, print_table, sub_app
from apportion.errors import unknown_name
from apportion.hooks.manager import AUTOLOAD_VARIABLE, DISABLE_VARIABLE, ENTRY_POINT_GROUP, Plugins, load_plugins
from apportion.hooks.registry import NOUNS, Entry
from apportion.testing.check.finding import Finding

__all__ = ["app"]

app = sub_app("The plugins: `list` (the default), `show NAME`, `check`.")

LOADED, FAILED, DISABLED, OFF = "loaded", "failed", "disabled", "off"
_STYLES = {LOADED: "green", FAILED: "bold red", DISABLED: "dim", OFF: "dim"}
_AS_BY_DEFAULT = {"progress": True}


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin and its state."""

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
    """List every plugin: loaded, failed (with the error), off or disabled."""
    rows = _rows(load_plugins(switches=_AS_BY_DEFAULT))
    if as_json:
        print_json([row.facts() for row in rows])
        return
    shown = [(row.name, _state(row), row.distribution, row.error or _registered(row)) for row in rows]
    print_table(("plugin", "state", "distribution", "registers, or its error"), shown)
    if os.environ.get(AUTOLOAD_VARIABLE) == "0":
        console().print(f"\nInstalled plugins are not loaded: {AUTOLOAD_VARIABLE}=0.")


@app.command("show")
def show_plugin(name: Annotated[str, typer.Argument(help="Name of a plugin.")], as_json: JsonFlag = False) -> None:
    """Show the hooks of one plugin and everything that it registers, or its error."""
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
    name: Annotated[str | None, typer.Argument(help="Name of the only plugin to check.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check everything that the plugins register, and try it out on something tiny. Exit with 1 on any fault.

    Names, signatures, summaries and documented options are checked, then each extension runs once.
    """
    plugins = load_plugins(switches=_AS_BY_DEFAULT)
    rows = _rows(plugins)
    rows = [row for row in rows if row.state in (LOADED, FAILED)] if name is None else [_row(rows, name)]
    checks = []
    for row in rows:
        checks.append(_check(row, plugins))
        if not as_json:
            _print_check(checks[-1])
    ok = not any(check.faults for check in checks)
    if as_json:
        print_json({"ok": ok, "plugins": [check.facts() for check in checks]})
    if not ok:
        raise typer.Exit(exits.FAILED)


def _rows(plugins: Plugins) -> list[Row]:
    """Rows of a list, failed plugins first: they are what users look for."""
    failed = [Row(p.name, FAILED, p.distribution, error=p.error) for p in plugins.failed]
    loaded = [Row(p.name, LOADED, p.distribution, p.hooks, tuple(plugins.entries_of(p.name))) for p in plugins.loaded]
    off = [Row(name, OFF, "built-in", switch=switch) for name, switch in plugins.off.items()]
    return failed + loaded + off + [Row(name, DISABLED) for name in plugins.disabled]


def _row(rows: list[Row], name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    hint = f"A plugin is a module that a distribution names in its entry points, group {ENTRY_POINT_GROUP!r}."
    if os.environ.get(AUTOLOAD_VARIABLE) == "0":
        hint = f"Installed plugins are not loaded: {AUTOLOAD_VARIABLE}=0."
    raise unknown_name("plugin", name, [row.name for row in rows], hint)


@dataclass(frozen=True, slots=True)
class Check:
    """The findings about one plugin."""

    plugin: str
    faults: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tried = [{"kind": f.kind, "name": f.name, "tried": f.tried} for f in self.findings]
        return {"name": self.plugin, "faults": list(self.faults), "tried": tried}


def _check(row: Row, plugins: Plugins) -> Check:
    if row.state == DISABLED:
        return Check(row.name, (f"it is disabled by {DISABLE_VARIABLE}",))
    if row.error:
        return Check(row.name, (row.error,))
    # Imported here: trying extensions out needs PyTorch.
    from apportion.testing.check.report import examine, examine_hooks

    findings = tuple(examine(row.entries, plugins))
    faults = [fault for finding in findings for fault in finding.faults]
    return Check(row.name, (*faults, *examine_hooks(row.name, plugins)), findings)


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


def _print_check(check: Check) -> None:
    out = console()
    if not check.faults:
        out.print(Text.assemble(("ok      ", "green"), check.plugin))
    for fault in check.faults:
        out.print(Text.assemble(("failed  ", "bold red"), f"{check.plugin}: {fault}"))
    for finding in check.findings:
        if finding.tried:
            out.print(Text(f"        {NOUNS[finding.kind]} {finding.name}: {finding.tried}", "dim"))
