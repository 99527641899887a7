"""Generates the files of a distribution from a name and a kind."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from apportion._version import __version__
from apportion.errors import InputError, PluginError, unknown_name
from apportion.hooks.hookspecs import API_VERSION

__all__ = ["KINDS", "Distribution", "write_distribution"]

KINDS = (
    "method",
    "white-box-method",
    "sampler",
    "input",
    "target",
    "visualizer",
    "backend",
    "metric",
    "segmenter",
    "fill",
)
OF_PICTURES = frozenset({"segmenter", "fill"})

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")

_USAGE: Mapping[str, str] = {
    "method": 'explainer.attribute("The capital of France is", " Paris", method="$name", budget=64)',
    "white-box-method": 'explainer.attribute("The capital of France is", " Paris", method="$name")',
    "sampler": 'explainer.attribute("The capital of France is", " Paris", method=…, sampler="$name")',
    "input": 'from $module import $Class\n\nexplainer.attribute($Class("one\\ntwo\\nthree"), " four")',
    "target": 'explainer.attribute("The capital of France is", " Paris", target_fn="$name")',
    "visualizer": 'explainer.attribute("The capital of France is", " Paris").plot("$name")',
    "backend": 'ap.Explainer("smollm2", backend="$name")',
    "metric": (
        "from $module import $Class\n\n"
        "$Class().measure(game, values, rng=torch.Generator())  # a Game, and one value per feature"
    ),
    "segmenter": 'explainer.attribute(ap.ImageText("photo.jpg", "What is it?", segments="$name"))',
    "fill": 'explainer.attribute(ap.ImageText("photo.jpg", "What is it?", fill="$name"))',
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A plugin to generate.

    Attributes:
        name: the name that users will type, such as ``"random_subset"``.
        kind: one of ``KINDS``.
    """

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, kind: str) -> Distribution:
        """Make one from user input: dashes or underscores, with or without the prefix ``apportion-``.

        Raises:
            InputError: the kind is unknown, or the name cannot be that of a package.
        """
        if kind not in KINDS:
            raise unknown_name("kind of plugin", kind, KINDS)
        plain = re.sub(r"^apportion[-_]", "", name)
        if not _NAME.fullmatch(plain):
            proposal = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-0123456789")
            hint = f" such as {proposal!r}" if proposal else ""
            raise InputError(
                f"{name!r} cannot be a plugin name; use lowercase letters, digits and dashes, a letter first{hint}."
            )
        found = cls(plain.replace("-", "_"), kind)
        if found.name == "auto":
            raise InputError("A plugin cannot be called 'auto', which is reserved for the automatic choice.")
        if keyword.iskeyword(found.name.capitalize()) or importlib.util.find_spec(found.module) is not None:
            raise InputError(f"{name!r} needs a module {found.module!r}, which is taken; choose another name.")
        return found

    @property
    def extension(self) -> str:
        """Kind of its extension, such as ``"method"`` for methods of either kind."""
        return self.kind.rpartition("-")[2]

    @property
    def folder(self) -> str:
        """Name of the distribution and of its folder."""
        return f"apportion-{self.name.replace('_', '-')}"

    @property
    def module(self) -> str:
        """Name of the module with the hooks."""
        return f"apportion_{self.name}"

    def files(self) -> dict[str, str]:
        """Contents of all files, by path in the folder."""
        words = self.name.replace("_", " ")
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        # Names that the templates already use, such as rich's Table.
        used = any(re.search(rf"\b{camel}\b", _template(f"{file}.py")) for file in (self.kind, f"test_{self.kind}"))
        names = {
            "name": self.name,
            "kind": self.kind.replace("white-box-", "white-box "),
            "module": self.module,
            "distribution": self.folder,
            "Class": f"{camel}{self.extension.capitalize()}" if used else camel,
            "summary": f"{words[0].upper()}{words[1:]}",
            "api_version": str(API_VERSION),
            "version": __version__,
            "imported": "numpy" if self.kind in OF_PICTURES else "torch",
        }
        usage = Template(_USAGE[self.kind]).substitute(names)
        model = "shapes" if self.kind in OF_PICTURES else "smollm2"
        opening = f'import apportion as ap\n\nexplainer = ap.Explainer("{model}")\n' if "explainer." in usage else ""
        opening = opening or ("import apportion as ap\n\n" if "ap." in usage else "")
        names["usage"] = f"```python\n{opening}{usage}\n```"
        return {
            path: Template(_template(template)).substitute(names)
            for path, template in {
                "pyproject.toml": "pyproject.toml",
                "README.md": "README.md",
                ".gitignore": "gitignore",
                f"{self.module}.py": f"{self.kind}.py",
                f"tests/test_{self.name}.py": f"test_{self.kind}.py",
            }.items()
        }


def write_distribution(distribution: Distribution, parent: Path) -> Path:
    """Write the files to a new folder; existing files are never changed.

    Returns:
        The folder.

    Raises:
        PluginError: the folder already exists, or cannot be written.
    """
    folder = parent / distribution.folder
    try:
        if not parent.is_dir():
            raise PluginError(f"There is no folder {parent}; create it, or name another one with --into.")
        if folder.exists():
            raise PluginError(f"{folder} already exists; choose another name, or another folder with --into.")
        for path, text in distribution.files().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"Cannot write {folder}: {error.strerror or error}.") from error
    return folder


def _template(name: str) -> str:
    return (resources.files("apportion.scaffold") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
