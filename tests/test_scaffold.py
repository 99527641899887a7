"""``apportion new plugin`` writes distributions whose tests pass at once, of every kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import apportion as ap
from apportion.cli import main
from apportion.hooks.manager import load_plugins
from apportion.hooks.registry import KINDS as REGISTRIES
from apportion.scaffold.distribution import KINDS, Distribution, write_distribution
from forks import Forks


def test_every_kind_of_extension_can_be_begun() -> None:
    assert {f"{Distribution.of('new', kind).extension}s" for kind in KINDS} == set(REGISTRIES)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tests_of_new_plugins_pass_at_once(tmp_path: Path, forks: Forks) -> None:
    """In one process, and each plugin loads, registers its name, and passes the plugin check."""
    folders = [write_distribution(Distribution.of(f"my-{kind}", kind), tmp_path) for kind in KINDS]
    path = {"PYTHONPATH": os.pathsep.join([*map(str, folders), *sys.path])}
    tests = [folder / "tests" for folder in folders]
    done = forks.pytest("--import-mode=importlib", *tests, cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    program = f"""
import importlib
from apportion.hooks.manager import load_plugins
from apportion.testing.check.report import examine
names = [kind.replace("-", "_") for kind in {KINDS}]
plugins = load_plugins([importlib.import_module(f"apportion_my_{{name}}") for name in names])
for name in names:
    entries = plugins.entries_of(f"apportion_my_{{name}}")
    assert [entry.name for entry in entries] == [f"my_{{name}}"], entries
    for finding in examine(entries, plugins):
        assert not finding.faults, finding
        assert finding.tried and "not tried" not in finding.tried, finding
"""
    checked = forks.run(program, env=path)
    assert checked.returncode == 0, checked.stderr


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "plugin", "apportion-random-subset", "--into", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'pip install -e ".[test]"' in out
    folder = tmp_path / "apportion-random-subset"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".gitignore", "README.md", "apportion_random_subset.py", "pyproject.toml", "tests",
    ]  # fmt: skip
    assert 'random_subset = "apportion_random_subset"' in (folder / "pyproject.toml").read_text()
    assert 'method="random_subset"' in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Random Subset"], "use lowercase letters, digits and dashes, a letter first such as 'random-subset'"),
        (["shapley"], "There is a method called 'shapley' already, of the plugin 'apportion_plugins.methods'"),
        (["x", "--kind", "methods"], "No kind of plugin is called 'methods'. Did you mean 'method'?"),
        (["taken"], "already exists; choose another name"),
        (["x", "--into", "file"], "There is no folder file; create it, or name another one with --into"),
        (["3"], "cannot be a plugin name"),
        (["plugins"], "needs a module 'apportion_plugins', which is taken"),
        (["none"], "needs a module 'apportion_none', which is taken"),
        (["auto"], "cannot be called 'auto'"),
    ],
)  # fmt: skip
def test_mistakes_are_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apportion-taken").mkdir()
    (tmp_path / "file").touch()
    assert main(["new", "plugin", *words]) == 1
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_distribution(Distribution.of("mine", "method"), tmp_path)
    with pytest.raises(ap.PluginError, match="already exists"):
        write_distribution(Distribution.of("mine", "input"), tmp_path)
    assert "mine" not in load_plugins()["methods"]


def test_names_that_the_templates_use_do_not_collide(tmp_path: Path) -> None:
    for name, kind in (("method-contract", "method"), ("table", "visualizer"), ("text", "visualizer")):
        distribution = Distribution.of(name, kind)
        module = distribution.files()[f"{distribution.module}.py"]
        assert (
            f"class {''.join(part.capitalize() for part in distribution.name.split('_'))}{kind.capitalize()}:" in module
        )
