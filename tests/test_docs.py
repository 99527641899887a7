"""The documentation is true: its code runs, its generated pages are current, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from apportion.plugins import hook_names, load_plugins

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/first.md"])
def test_the_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in python_blocks(ROOT / page):
        exec(compile(block, page, "exec"), namespace)
    assert (tmp_path / "dave.png").stat().st_size > 10_000


def test_the_plugin_page_runs() -> None:
    """Its method and its input work as plugins."""
    import apportion as ap
    import tiny

    blocks = python_blocks(ROOT / "docs/how-to/write-a-plugin.md")
    method, lines = (type(name, (), {}) for name in ("Method", "Lines"))
    for plugin, block in ((method, blocks[0]), (lines, blocks[2])):
        namespace: dict[str, object] = {"ap": ap}
        exec(block, namespace)
        for name, value in namespace.items():
            if name.startswith("apportion_"):
                setattr(plugin, name, staticmethod(value))
    plugins = [method(), lines()]
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=plugins)
    prompt = namespace["Lines"]("one\ntwo\nthree")  # type: ignore[operator]
    result = explainer.attribute(prompt, "!", method="half", budget=8)
    assert result.feature_names == ("line 1", "line 2", "line 3")


def test_generated_pages_are_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    spec = importlib.util.spec_from_file_location("generate", tmp_path / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    generate.main()
    for name in generate.PAGES:
        assert (tmp_path / name).read_text() == (ROOT / "docs/reference" / name).read_text(), f"run make docs: {name}"


def test_every_hook_and_name_is_in_the_reference() -> None:
    hooks = (ROOT / "docs/reference/hooks.md").read_text()
    assert all(f"## `{name}`" in hooks for name in hook_names())
    listed = (ROOT / "docs/reference/methods.md").read_text()
    for registry in load_plugins().registries.values():
        for entry in registry:
            if entry.plugin.startswith("apportion_"):
                assert f"### `{entry.name}`" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
