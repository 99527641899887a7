"""The import graph of core, type-checking imports included: no circles. Layers are held by `make check`."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CORE = Path(__file__).parent.parent / "core"


def modules() -> dict[str, Path]:
    """Every module of core by its dotted name, without templates."""
    found = {}
    for path in (CORE / "apportion").rglob("*.py"):
        parts = path.relative_to(CORE).with_suffix("").parts
        if "templates" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: Container[str]) -> Iterator[str]:
    """Everything that a module imports, at its top, in its functions or for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in known else node.module for name in inner)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle; none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_module_imports_itself_in_a_circle() -> None:
    found = modules()
    graph = {name: {other for other in imports(path, found) if other in found} - {name} for name, path in found.items()}
    # The names that users type come from everywhere, for type checkers; nobody inside uses them.
    assert all("apportion" not in others for name, others in graph.items() if name != "apportion.__main__")
    assert sum(map(len, graph.values())) > 500, "the graph was not read"
    assert circle(graph) == []


def test_a_circle_would_be_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_packages_say_their_idea_and_import_nothing() -> None:
    for path in (CORE / "apportion").glob("*/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        if path.parent.name not in ("captum", "cli", "testing"):
            assert len(tree.body) == 1, f"{path} re-exports something"
