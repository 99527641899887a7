"""Docstrings and messages are in plain English: docstrings open with a noun or a verb, and "is no X" is avoided."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("core/apportion", "backends/apportion_backends", "plugins/apportion_plugins")
FICTION = ("core/apportion/benchmarking/texts.py",)
"""Prompts for benchmarks, whose wording must not change."""

OPENING = re.compile(r"(What|How|Whether|Which|Where|Why)\b")
PHRASE = re.compile(
    # "is not a number" instead of "is no number"; but "there is no number", "is no longer" and other comparatives.
    r"(?<!there )\b(is|are) no\b(?! (better|coarser|faster|larger|longer|more|shorter|slower|smaller|worse)\b)"
    r"|\blest\b|\bmend(s|ed|ing)?\b",
    re.IGNORECASE,
)


def files() -> list[str]:
    found = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(found)


def openings(tree: ast.Module) -> Iterator[str]:
    """First lines of docstrings that open with a question word and are not questions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first, *_ = (ast.get_docstring(node) or "").splitlines() or [""]
            if OPENING.match(first) and not first.endswith("?"):
                yield first


def phrases(tree: ast.Module) -> Iterator[str]:
    """Strings with a phrase to avoid, those in f-strings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = " ".join(node.value.split())
            yield from (text[max(0, found.start() - 30) : found.end() + 30] for found in PHRASE.finditer(text))


@pytest.mark.parametrize("path", files())
def test_words(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert list(openings(tree)) == [], "open with a noun or a verb, or 'True if …' for a bool"
    assert path in FICTION or list(phrases(tree)) == [], "write 'is not a …', 'so that … not' or 'fix'"


def test_the_checks_find_what_they_are_for() -> None:
    tree = ast.parse('"""What it is."""\ndef f(x):\n    """Why not?"""\n    return f"{x} is no id, lest it be mended"')
    assert list(openings(tree)) == ["What it is."]
    assert len(list(phrases(tree))) == 3
    allowed = ast.parse('"there is no id, it is no longer valid, and they are no better; a recommended one"')
    assert list(phrases(allowed)) == []
