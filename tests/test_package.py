"""The package: light to import, three roots, nothing reached statically that should be a plugin."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import apportion as ap

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "triton", "onnxruntime", "matplotlib", "pandas", "rich", "typer", "sklearn", "numpy")


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light() -> None:
    assert python(f"import sys, apportion; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_every_public_name_resolves() -> None:
    for name in ap.__all__:
        assert getattr(ap, name) is not None
    assert dir(ap) == ap.__all__
    with pytest.raises(AttributeError, match="no attribute 'Explainr'"):
        ap.Explainr


def test_nothing_else_is_public() -> None:
    """Of the names that modules offer, those in `__all__` can be had from the package, and no others."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "core" / "apportion").rglob("*.py")]
    lists = [node.value for tree in trees for node in tree.body if isinstance(node, ast.Assign)
             and [getattr(target, "id", "") for target in node.targets] == ["__all__"]]  # fmt: skip
    offered = {name for found in lists for name in ast.literal_eval(found)}
    assert len(offered) > 300
    reached = {name for name in offered if not isinstance(getattr(ap, name, None), ModuleType | None)}
    assert reached == set(ap.__all__)


def test_reading_a_result_needs_no_torch() -> None:
    program = """
import sys
from apportion import Attribution, ResultError
try:
    Attribution.load("none.json")
except ResultError:
    print("torch" in sys.modules)
"""
    assert python(program) == "False"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_core_never_imports_backends_or_plugins() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        assert not imports(path) & {"apportion_backends", "apportion_plugins"}, path
    for path in (ROOT / "backends").rglob("*.py"):
        assert "apportion_plugins" not in imports(path), path
    for path in (ROOT / "plugins").rglob("*.py"):
        assert "apportion_backends" not in imports(path), path


def test_source_roots_hold_packages_only() -> None:
    for root in ("core", "backends", "plugins"):
        assert [p.name for p in (ROOT / root).glob("*.py")] == []


@pytest.mark.slow
def test_the_wheel_has_three_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"apportion", "apportion_backends", "apportion_plugins"}
    assert {f"{package}/py.typed" for package in top} <= set(names)


def test_the_oldest_versions_allowed_are_those_that_are_tried() -> None:
    """`make test-oldest` installs them; without this, a bound could promise a version that nobody has run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(
            line
            for name in ("gguf", "image", "onnx", "pandas", "parquet", "ray", "remote", "text", "triton")
            for line in extras[name]
        ),
    ]
    lines += [line for line in extras["test"] if not line.startswith("apportion")]
    asked = [Requirement(line) for line in lines]
    bounds = {one.name: Version(bound.version) for one in asked for bound in one.specifier if bound.operator == ">="}
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pins = [line.split("==") for line in text.splitlines() if not line.startswith("#")]
    tried = {name: Version(version) for name, version in pins}
    assert tried == bounds and set(bounds) == {one.name for one in asked}
