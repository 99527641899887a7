"""Pages on Python objects, from their source: signatures and docstrings as Markdown, readable without a site.

Signatures are marked ``py``; blocks marked ``python`` are examples, which tests run.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum

SECTIONS = {
    "Explaining": (
        "Explainer", "Text", "Template", "Chat", "Documents", "ImageText", "Cost", "load_results", "export", "Export",
    ),
    "Results": ("Attribution", "Provenance", "HtmlView", "Feature", "Segment", "Level"),
    "Context reliance": ("ContextReliance", "SensitiveToken", "ContextualCue"),
    "Evaluations and comparisons": ("Evaluation", "Comparison", "ResultComparison", "compare", "Metric", "Measurement"),
    "Methods": (
        "Game", "Method", "Estimate", "Sampler", "Coalitions", "Inside", "Edits",
        "Gradients", "ModuleGradients", "Trace",
    ),
    "Inputs": ("InputAdapter", "AdaptContext", "ModelInput", "Media", "Alternatives"),
    "Pictures": ("Picture", "Region", "Segmenter", "Fill"),
    "Targets": ("TargetFunction", "TextValue", "Needs", "Scores", "Target"),
    "Visualizers": ("Visualizer",),
    "Backends": (
        "Backend", "BackendInfo", "ExportBackend", "Available", "Unavailable", "Session", "LogitsSession",
        "GenerateSession", "TextSession", "SessionInfo", "Capability", "Layout", "ScoringBatch", "PaddedBatch", "Row",
        "ModelSpec", "InsideSession", "EmbeddedBatch", "Likeness",
    ),
    "Other processes": ("Executor", "RayExecutor"),
    "Plugins": ("Settings", "Request", "ProgressEvent", "Read"),
    "Errors": (
        "ApportionError", "InputError", "BudgetError", "UnknownNameError", "ModelError", "BackendError",
        "CapabilityError", "BatchTooLargeError", "ScoreError", "ServerError", "PluginError", "ResultError",
    ),
}  # fmt: skip
"""Names that can be imported from ``apportion``, by section of the page."""

WIDTH = 100
"""Longest signature on one line."""

TITLES = ("Args", "Attributes", "Returns", "Raises")

Function = ast.FunctionDef


def api_page() -> str:
    """Render the page of the Python API."""
    parts = ["# Python API\n", "All names below can be imported from `apportion`; they are loaded when first used.\n"]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += object_section(getattr(importlib.import_module("apportion"), name), 3)
    return "\n".join(parts)


def protocol_block(path: str) -> str:
    """Render the object with a dotted path, for a page that explains how to implement it."""
    module, name = path.rsplit(".", 1)
    return "\n".join(object_section(getattr(importlib.import_module(module), name), 3)).strip()


def contract_block(path: str) -> str:
    """Render what a contract is, and a table of its checks."""
    module, name = path.rsplit(".", 1)
    contract = getattr(importlib.import_module(module), name)
    checks, own = [], []
    for function in functions_of(class_of(contract)):
        doc = cleaned(function)
        if function.name.startswith("test_"):
            checks.append(f"| `{function.name}` | {' '.join(doc.split()).replace('|', chr(92) + '|')} |")
        else:
            own.append(f"- `{signature(function, 'self')}`: {' '.join(doc.split(chr(10) * 2)[0].split())}")
    return "\n".join(
        [
            f"`apportion.testing.{name}`: {markdown(inspect.getdoc(contract) or '')}\n",
            "Its fixtures and functions, which a subclass may override:\n",
            *own,
            "\n| check | what must hold |\n|---|---|",
            *checks,
        ]
    )


def object_section(thing: object, level: int) -> Iterator[str]:
    """Render a class, its public members, or a function."""
    name = thing.__name__  # type: ignore[attr-defined]
    yield f"{'#' * level} `{name}`\n"
    doc = markdown(inspect.getdoc(thing) or "") + "\n"
    if not isinstance(thing, type):
        (function,) = [f for f in functions_of(ast.parse(source_of(thing))) if not is_overload(f)]
        yield f"```py\n{signature(function)}\n```\n"
        yield doc
        return
    found = class_of(thing)
    yield f"```py\n{class_signature(thing, found)}\n```\n"
    yield doc
    if issubclass(thing, Enum):
        yield "\n".join(f"- `{name}.{member.name}`" for member in thing) + "\n"
    for attribute, annotation, note in documented_attributes(found):
        yield f"{'#' * (level + 1)} `{name}.{attribute}`\n"
        yield f"```py\n{attribute}: {double_quoted(annotation)}\n```\n"
        yield markdown(note) + "\n"
    for function in functions_of(found):
        yield f"{'#' * (level + 1)} `{name}.{function.name}`\n"
        plain = is_decorated(function, "property")
        text = (
            double_quoted(f"{function.name}: {unparsed(function.returns)}")
            if plain
            else signature(function, "self", "cls")
        )
        yield f"```py\n{text}\n```\n"
        yield markdown(cleaned(function)) + "\n"


def source_of(thing: object) -> str:
    """The source of a class or function, from its first line on, with the values of constants as defaults."""
    module = inspect.getmodule(thing)

    def value(match: re.Match[str]) -> str:
        found = getattr(module, match[1], None)
        return f" = {found!r}" if isinstance(found, str | int | float) else match[0]

    source = textwrap.dedent(inspect.getsource(thing))  # type: ignore[arg-type]
    return re.sub(r" = ([A-Z][A-Z_]+)(?=[,)\n])", value, source)


def class_of(thing: type) -> ast.ClassDef:
    """The syntax tree of a class."""
    (found,) = ast.parse(source_of(thing)).body
    assert isinstance(found, ast.ClassDef)
    return found


def functions_of(tree: ast.ClassDef | ast.Module) -> list[Function]:
    """Public functions with a docstring, in the order of the source, without overloads."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = [f for f in found if not f.name.startswith("_") or f.name == "__call__"]
    return [f for f in public if ast.get_docstring(f) and not is_overload(f) and not f.name.startswith("pytest_")]


def documented_attributes(found: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Attributes with a docstring of their own: name, annotation and docstring."""
    for node, after in zip(found.body, found.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield unparsed(node.target), unparsed(node.annotation), inspect.cleandoc(str(after.value.value))


def class_signature(thing: type, found: ast.ClassDef) -> str:
    """How a class is called; its bases instead, for protocols, enumerations and errors."""
    name = found.name
    if issubclass(thing, BaseException | Enum) or getattr(thing, "_is_protocol", False):
        return f"class {name}({', '.join(map(unparsed, found.bases))})"
    makers = ("__init__", "__new__")
    start = next((f for f in found.body if isinstance(f, ast.FunctionDef) and f.name in makers), None)
    if start is not None:
        return laid_out(f"class {name}", parameters(start, "self", "cls"), "")
    return laid_out(f"class {name}", dataclass_parameters(found), "")


def dataclass_parameters(found: ast.ClassDef) -> list[str]:
    """Parameters of a dataclass: its fields, with their defaults."""
    positional: list[str] = []
    keywords: list[str] = []
    for node in found.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        given = {key.arg: key.value for key in node.value.keywords} if isinstance(node.value, ast.Call) else {}
        if unparsed(given.get("init")) == "False":
            continue
        annotation = re.sub(r"^InitVar\[(.*)\]$", r"\1", unparsed(node.annotation))
        default = given.get("default", node.value)
        text = "…" if "default_factory" in given else unparsed(default)
        shown = f"{unparsed(node.target)}: {annotation}" + (f" = {text}" if node.value is not None else "")
        (keywords if unparsed(given.get("kw_only")) == "True" else positional).append(shown)
    return [*positional, *(["*", *keywords] if keywords else [])]


def signature(function: Function, *without: str) -> str:
    """A function's name, parameters and return type."""
    end = f" -> {unparsed(function.returns)}" if function.returns is not None else ""
    return laid_out(function.name, parameters(function, *without), end)


def parameters(function: Function, *without: str) -> list[str]:
    """A function's parameters as written, without some."""
    function = ast.parse(ast.unparse(function)).body[0]  # type: ignore[assignment]
    args = function.args
    args.args = [arg for arg in args.args if arg.arg not in without]
    args.posonlyargs = [arg for arg in args.posonlyargs if arg.arg not in without]
    text = ast.unparse(args)
    # Split at commas outside of brackets.
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "[({") - (character in "])}")
        if character == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    return [re.sub(r"^(\w+: .*?)=", r"\1 = ", part) for part in [*parts, text[start:].strip()] if part]


def laid_out(name: str, parts: Sequence[str], end: str) -> str:
    """A call on one line if it fits, else with one parameter per line."""
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) > WIDTH:
        line = "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){end}"])
    return double_quoted(line)


def double_quoted(code: str) -> str:
    """The same code with strings in double quotes."""
    return re.sub(r"'([^'\"\n]*)'", r'"\1"', code)


def unparsed(node: ast.AST | None) -> str:
    """The source of a node; empty for none."""
    return "" if node is None else ast.unparse(node)


def is_decorated(function: Function, name: str) -> bool:
    """True if a function has a decorator of this name."""
    return any(unparsed(decorator).split(".")[-1] == name for decorator in function.decorator_list)


def is_overload(function: Function) -> bool:
    """True for the declaration of one way to call a function."""
    return is_decorated(function, "overload")


def cleaned(function: Function) -> str:
    """A function's docstring without its indentation."""
    return ast.get_docstring(function) or ""


def markdown(doc: str) -> str:
    """Convert a docstring to Markdown: code in single backticks, sections as lists with bold titles."""
    blocks: list[str] = []
    section: list[str] | None = None
    for line in doc.replace("``", "`").splitlines():
        title = line.removesuffix(":")
        if line.endswith(":") and title in TITLES:
            section = [f"**{title}**\n"]
            blocks.append("")
        elif section is not None and line.startswith("    "):
            deeper = line.startswith("        ")
            text = line.strip()
            if deeper and len(section) > 1:
                section[-1] += f" {text}"
            else:
                section.append(text if section[0].startswith("**Returns") else entry(text))
        elif section is None or line:
            section = None
            blocks.append(line)
        if section is not None:
            blocks[-1] = "\n".join(section) + "\n"
    return "\n".join(blocks).strip()


def entry(text: str) -> str:
    """An entry of a section as a list item, with its name as code."""
    name, colon, rest = text.partition(": ")
    if not colon:
        return f"- {text}"
    return f"- {', '.join(f'`{part}`' for part in name.replace('`', '').split(', '))}: {rest}"
