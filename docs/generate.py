"""Generates the parts of the documentation that come from the code: API, hooks, methods, command line and directory.

A test checks that the committed pages are up to date.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from pathlib import Path

import typer
from api_pages import api_page, contract_block, markdown, protocol_block

from apportion.cli.app import app
from apportion.cli.kinds import facts_of
from apportion.hooks import hookspecs
from apportion.hooks.docstrings import description, parameter_notes
from apportion.hooks.manager import SWITCHED, load_plugins
from apportion.hooks.registry import KINDS, Entry
from apportion.hooks.validation import hook_names
from apportion.options import named_options

DOCS = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py; change the code instead. -->\n\n"
BEGIN = "<!-- built-ins: written by docs/generate.py; change the code instead. -->"
END = "<!-- end of built-ins -->"
REFERENCE_END = "<!-- end of reference -->"
REFERENCE = re.compile(rf"(?P<begin><!-- reference: (?P<path>[\w.]+) -->).*?{REFERENCE_END}", flags=re.S)


def hooks_page() -> str:
    """Render the page of hooks, with signatures and docstrings."""
    parts = [
        "# Hooks\n",
        "The hooks that apportion calls: when, in which order, and what `None` means. Implement any of them as "
        "functions marked with `@apportion.hookimpl` in a module that is listed in the entry-point group `apportion`, "
        "or as methods of an object for `Explainer(plugins=[…])`. An implementation may omit arguments, but not add "
        f"any. Plugin API version: {hookspecs.API_VERSION}.\n",
        "![When each hook is called: on loading, and during a run](../images/lifecycle.svg)\n",
        "| when | hooks, in this order |\n|---|---|\n"
        "| once, when the plugin is loaded | `apportion_configure`, then each `apportion_register_…` |\n"
        "| once per run, before scoring | `apportion_adapt_input`; "
        'if no target is given, `apportion_on_progress` (`"generate"`); `apportion_before_run` |\n'
        "| each time the method evaluates coalitions | `apportion_lookup` (unless the target function needs logits), "
        'then `apportion_on_progress` (`"score"`, 0 rows done) |\n'
        "| the same, if the target function reads texts | `apportion_lookup_texts`; after each text "
        "`apportion_text_written` and `apportion_on_progress`. The first text after the full prompt is written before "
        "`apportion_before_run`, to try the target function on it |\n"
        "| each batch | `apportion_score`, also if the target function needs logits; then `apportion_on_progress` |\n"
        "| once per run, at its end | `apportion_after_run` on success, "
        '`apportion_on_progress` (`"end"`) always |\n',
        "\nRuns of `attribute_many` are interleaved: a batch may contain rows of several runs, and "
        '`apportion_on_progress` is called with `"items"` and `"close"` for all of them. Every hook and event of a run '
        "carries its id, `request.id` or `event.request_id`.\n",
    ]
    for name in hook_names():
        function = getattr(hookspecs, name)
        options = getattr(function, "apportion_spec", {})
        kinds = [word for word, key in (("first result", "firstresult"), ("historic", "historic")) if options.get(key)]
        parts.append(f"## `{name}`\n")
        parts.append(f"```python\ndef {name}{signature(function)}\n```\n")
        if kinds:
            parts.append(f"*{', '.join(kinds)}*\n")
        parts.append(markdown(inspect.getdoc(function) or "") + "\n")
    return GENERATED + "\n".join(parts)


def methods_page() -> str:
    """Render the page of everything that the built-in plugins register."""
    plugins = load_plugins()
    parts = [
        "# Methods, inputs, targets, views, backends, segmenters\n",
        "The built-in extensions, by the names that you type. Plugins can add to these lists; `apportion methods`, "
        "`apportion backends` and `apportion plugins` show what is installed.\n",
    ]
    for kind in KINDS:
        entries = [entry for entry in plugins[kind] if is_built_in(entry)]
        if not entries:
            continue
        parts.append(f"## {kind.capitalize()}\n")
        if kind == "methods":
            parts.append(table_of_methods(entries))
        for entry in entries:
            made = entry.load()
            parts.append(f"### `{entry.name}`\n\n{entry.summary[0].upper()}{entry.summary[1:]}.\n")
            if kind in ("segmenters", "fills"):
                parts += [markdown(description(made)) + "\n", *options_table(made)]
                continue
            parts.append(markdown(inspect.getdoc(made) or "") + "\n")
            runner = getattr(made, "run", None) or getattr(made, "render", None)
            parts += options_table(runner) if runner and kind in ("methods", "visualizers") else []
    return GENERATED + "\n".join(parts)


def table_of_methods(entries: list[Entry]) -> str:
    """Render family, estimand, needs and cost of each method as a table."""
    rows = []
    for entry in entries:
        facts = facts_of("methods", entry.name)
        needs = ", ".join(f"`{name}`" for name in facts["requires"]) or "nothing more"
        about = (facts["family"], facts["estimand"], needs, facts["cost"])
        rows.append(f"| [`{entry.name}`](#{entry.name}) | {' | '.join(map(cell, about))} |")
    return "| method | family | estimand | needs | cost |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def directory_page() -> str:
    """Render the directory of plugins, of which only the table of built-ins is generated."""
    page = (DOCS / "extend" / "directory.md").read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{built_ins_table()}\n\n{END}{rest.split(END)[1]}"


def built_ins_table() -> str:
    """Render name, kind and summary of all built-ins as a table."""
    plugins = load_plugins()
    rows = []
    for kind in KINDS:
        page = f"[{kind[:-1]}]({kind}.md)"
        rows += [f"| `{e.name}` | {page} | {cell(e.summary)} |" for e in plugins[kind] if is_built_in(e)]
    for switch, path in SWITCHED.items():
        summary = (importlib.import_module(path.split(":")[0]).__doc__ or "").splitlines()[0].rstrip(".")
        rows.append(f"| `{switch}` | [observer](observers.md) | {cell(summary[0].lower() + summary[1:])} |")
    return "| name | kind | summary |\n|---|---|---|\n" + "\n".join(rows)


def cell(text: str) -> str:
    """Escape text for a Markdown table."""
    return text.replace("|", "\\|")


def is_built_in(entry: Entry) -> bool:
    """True for built-ins, and not for other plugins that happen to be installed."""
    return entry.plugin.startswith(("apportion_plugins", "apportion_backends"))


def options_table(function: object) -> list[str]:
    """Render the options of a method or view as a table."""
    options = named_options(function)  # type: ignore[arg-type]
    if not options:
        return []
    notes = parameter_notes(function)
    rows = [
        f"| `{o.name}` | `{cell(str(o.annotation))}` | `{cell(repr(o.default))}` | {cell(notes.get(o.name, ''))} |"
        for o in options.values()
    ]
    return ["| option | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"]


def command_page() -> str:
    """Render the help of every command."""
    context = typer.main.get_command(app)
    parts = ["# Command line\n", "The output of `--help` for each command.\n"]
    parts += command_help("apportion", context, 2)
    return GENERATED + "\n".join(parts)


def command_help(path: str, command: object, level: int) -> list[str]:
    """Render the help of a command and its subcommands."""
    options = [p for p in command.params if p.name not in ("help", "install_completion", "show_completion")]  # type: ignore[attr-defined]
    options.sort(key=lambda p: p.param_type_name != "argument")
    parts = [f"{'#' * level} `{path}`\n", (command.help or "").split("\f")[0].strip() + "\n"]  # type: ignore[attr-defined]
    rows = [parameter_row(p) for p in options if not getattr(p, "hidden", False)]
    if rows:
        parts.append("| parameter | | |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    for name, child in getattr(command, "commands", {}).items():
        parts += command_help(f"{path} {name}", child, min(level + 1, 4))
    return parts


def parameter_row(parameter: object) -> str:
    """Render a parameter as a row: name, metavar and help."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))  # type: ignore[attr-defined]
    if parameter.param_type_name == "argument":  # type: ignore[attr-defined]
        names = f"`{parameter.name.upper()}`"  # type: ignore[attr-defined]
    flag = getattr(parameter, "is_flag", False)
    kind = "" if flag else str(getattr(parameter, "metavar", "") or "")
    text = (getattr(parameter, "help", "") or "").replace("\n", " ").replace("|", "\\|")
    return f"| {names} | {kind} | {text} |".replace("|  |", "| |")


def signature(function: object) -> str:
    """Render a signature with its annotations as written."""
    found = inspect.signature(function)  # type: ignore[arg-type]
    parts = [f"{p.name}: {p.annotation}" for p in found.parameters.values()]
    return f"({', '.join(parts)}) -> {found.return_annotation}:"


def extending_page(name: str) -> str:
    """Render the blocks of a page on extending apportion that come from protocols and contracts."""

    def block(match: re.Match[str]) -> str:
        path = match["path"]
        text = contract_block(path) if path.endswith("Contract") else protocol_block(path)
        return f"{match['begin']}\n\n{tidy(text)}\n{REFERENCE_END}"

    return REFERENCE.sub(block, (DOCS / "extend" / f"{name}.md").read_text(encoding="utf-8"))


def tidy(text: str) -> str:
    """The text without repeated blank lines."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


PAGES = {
    "reference/api.md": lambda: GENERATED + api_page(),
    "reference/hooks.md": hooks_page,
    "reference/methods.md": methods_page,
    "reference/command-line.md": command_page,
    "extend/directory.md": directory_page,
    **{f"extend/{kind}.md": functools.partial(extending_page, kind) for kind in KINDS},
}


def main() -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        text = make()
        (DOCS / name).write_text(tidy(text) if text.startswith(GENERATED) else text, encoding="utf-8")


if __name__ == "__main__":
    main()
