"""The plugin system: broken plugins, really installed, are reported and the rest keeps working."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import apportion as ap
from apportion.hooks.hookspecs import API_VERSION
from apportion.hooks.manager import BUILT_INS, DISABLE_VARIABLE, load_plugins
from apportion.hooks.validation import hook_names
from apportion.testing import tiny
from apportion.testing.check.report import examine
from forks import Forks

BROKEN = {
    "broken-import": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "misspelled-hook": (
        "import apportion\n@apportion.hookimpl\ndef apportion_register_method(register): pass",
        "There is no hook 'apportion_register_method'. Did you mean 'apportion_register_methods'?",
    ),
    "misspelled-argument": (
        "import apportion\n@apportion.hookimpl\ndef apportion_register_methods(registry): pass",
        "'apportion_register_methods' is not given 'registry'. Did you mean 'register'? It is given: register.",
    ),
    "wrong-api": (
        "APPORTION_API_VERSION = 99\nimport apportion",
        f"written for plugin API version 99, and this is apportion {ap.__version__} with version {API_VERSION}",
    ),
    "duplicate-name": (
        "import apportion\n@apportion.hookimpl\ndef apportion_register_methods(register):\n"
        "    register('mine', object, summary='s')\n    register('shapley', object, summary='s')",
        "The method 'shapley' of the plugin 'duplicate-name' is already registered by 'apportion_plugins.methods'",
    ),
    "crash": (
        "import apportion\n@apportion.hookimpl\ndef apportion_register_methods(register):\n    1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "forgotten-mark": (
        "def apportion_register_methods(register): pass",
        "'apportion_register_methods' is not marked with @apportion.hookimpl",
    ),
    "exits": ("import sys\nprint('hello')\nsys.exit(3)", "SystemExit: 3"),
    "empty": ("import apportion", "'empty' implements no hook"),
    "crash-configure": (
        "import apportion\n@apportion.hookimpl\ndef apportion_configure(settings):\n    raise OSError('disk')",
        "OSError: disk",
    ),
}
GOOD = """
import torch, apportion as ap
class Half:
    estimand, requires = "Banzhaf value", frozenset()
    def run(self, game, *, budget, rng, **options):
        mask = torch.rand(budget or 64, game.n_features, generator=rng) < 0.5
        v = game.values(mask); m = mask.double()
        return ap.Estimate((m.T @ v) / m.sum(0)[:, None] - ((1 - m).T @ v) / (1 - m).sum(0)[:, None])
@ap.hookimpl
def apportion_register_methods(register):
    register("half", Half, summary="difference of means over random halves")
"""


def write_distribution(folder: Path, name: str, source: str) -> None:
    """An installable distribution of one module."""
    module = name.replace("-", "_")
    folder.mkdir()
    (folder / f"{module}.py").write_text(source)
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "apportion-{name}"
        version = "1.2"
        [project.entry-points.apportion]
        {name} = "{module}"
        [tool.hatch.build.targets.wheel]
        include = ["{module}.py"]
        """)
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed a working plugin and all the broken ones."""
    work = tmp_path_factory.mktemp("distributions")
    target = tmp_path_factory.mktemp("site")
    for name, (source, _) in BROKEN.items():
        write_distribution(work / name, name, source)
    write_distribution(work / "half", "half", GOOD)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    folders = [str(work / name) for name in [*BROKEN, "half"]]
    subprocess.run([*command, "--target", str(target), *folders], check=True, capture_output=True)
    return target


LISTING = """
import json
from apportion.hooks.manager import load_plugins
p = load_plugins()
print(json.dumps({
    "loaded": {x.name: x.distribution for x in p.loaded},
    "failed": {x.name: [x.distribution, x.error] for x in p.failed},
    "disabled": p.disabled,
    "methods": p["methods"].names(),
}))
"""


def path(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}


def listing(forks: Forks, site: Path, **environment: str) -> Mapping[str, Any]:
    done = forks.run(LISTING, env=path(site) | environment)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def test_broken_plugins_are_reported_with_distribution_and_reason(site: Path, forks: Forks) -> None:
    found = listing(forks, site)
    assert set(found["failed"]) == set(BROKEN)
    for name, (_, reason) in BROKEN.items():
        distribution, error = found["failed"][name]
        assert distribution == f"apportion-{name} 1.2"
        assert reason in error
        assert "\n" not in error
    assert found["loaded"]["half"] == "apportion-half 1.2"
    assert "half" in found["methods"]
    assert "mine" not in found["methods"], "a plugin that failed leaves nothing behind"


def test_attribution_runs_beside_broken_plugins(site: Path, tiny_model_dir: Path, forks: Forks) -> None:
    program = (
        "import sys, apportion as ap; r = ap.Explainer(sys.argv[1]).attribute('a b c', 'd', method='half', budget=8);"
        "print(r.provenance.method, len(r.values))"
    )
    done = forks.run(program, tiny_model_dir, env=path(site))
    assert done.stdout.split() == ["half", "3"], done.stderr


def test_the_environment_switches_plugins_off(site: Path, forks: Forks) -> None:
    found = listing(forks, site, APPORTION_DISABLE_PLUGINS="half, broken-import")
    assert sorted(found["disabled"]) == ["broken-import", "half"]
    assert "half" not in found["methods"]
    assert "broken-import" not in found["failed"]
    nothing = listing(forks, site, APPORTION_PLUGIN_AUTOLOAD="0")
    assert not nothing["failed"]
    assert set(nothing["loaded"]) == {name.split(":")[0] for name in BUILT_INS}


def test_the_built_ins_go_through_the_same_hooks() -> None:
    plugins = load_plugins()
    owners = {entry.plugin for kind in plugins.registries.values() for entry in kind}
    assert {"apportion_plugins.methods", "apportion_plugins.inputs", "apportion_backends.torch"} <= owners
    for registry in plugins.registries.values():
        for entry in registry:
            made = entry.load() if entry.kind == "inputs" else entry.make()
            assert made.__doc__ or type(made).__doc__, f"{entry.kind} {entry.name} has no docstring"


class Shouting:
    """Claims texts that built-ins would also take: third parties are asked first."""

    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object, context: ap.AdaptContext) -> ap.InputAdapter | None:
        from apportion_plugins.inputs.text import text_adapter

        if isinstance(prompt, ap.Text) and prompt.text.islower():
            return text_adapter(ap.Text(prompt.text.upper()), context)
        return None


def test_third_parties_are_asked_before_built_ins() -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[Shouting()])
    assert explainer.attribute("a b", "x").feature_names == ("A", "B")
    assert explainer.attribute("A b", "x").feature_names == ("A", "b")


class Registering:
    """Registers one method with what the test gives."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments, self.keywords = arguments, keywords

    @ap.hookimpl
    def apportion_register_methods(self, register: Any) -> None:
        register(*self.arguments, **self.keywords)


def test_a_missing_name_speaks_of_plugins_only_if_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = load_plugins()
    with pytest.raises(ap.UnknownNameError) as plain:
        plugins["targets"].get("logprob")
    assert "plugin" not in str(plain.value)
    plugins.add("half", "apportion-half 0.1.0", lambda: object())
    with pytest.raises(ap.UnknownNameError, match="A plugin may be missing: 'half' failed to load. See `apportion pl"):
        plugins["targets"].get("half")
    monkeypatch.setenv(DISABLE_VARIABLE, "apportion_plugins.metrics")
    with pytest.raises(ap.UnknownNameError, match="No metric is called 'lds'.*'apportion_plugins.metrics' is disabled"):
        load_plugins()["metrics"].get("lds")


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Registering("a b", object, summary="s"), "'a b' cannot be the name of a method"),
        (Registering("ab", 3, summary="s"), "must be callable, or a string 'module:name'; it is 3"),
        (Registering("ab", object, summary=" "), "needs a summary"),
        (Registering("ab", object), "needs a summary"),
        (object(), "'object' implements no hook"),
    ],
)
def test_plugin_objects_are_checked(plugin: object, message: str) -> None:
    with pytest.raises(ap.PluginError, match=message):
        load_plugins([plugin])


def test_two_plugins_cannot_share_a_name() -> None:
    with pytest.raises(ap.PluginError, match="Another plugin called 'Shouting' is loaded"):
        load_plugins([Shouting(), Shouting()])


def test_a_factory_that_fails_names_its_plugin() -> None:
    plugins = load_plugins([Registering("broken", "no_such_module:Method", summary="s")])
    with pytest.raises(ap.PluginError, match="'Registering' could not load its method 'broken': ModuleNotFoundError"):
        plugins["methods"].get("broken").make()


def test_plugins_are_told_the_settings() -> None:
    class Configured:
        @ap.hookimpl
        def apportion_configure(self, settings: ap.Settings) -> None:
            self.settings = settings

    plugin = Configured()
    load_plugins([plugin])
    assert plugin.settings.api_version == API_VERSION
    assert plugin.settings.version == ap.__version__


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("striped", {}),
        ("striped:3", {"stripes": 3}),
        ("striped:3x2", {"stripes": 3, "wide": 2}),
        ("striped:wide=0.5", {"wide": 0.5}),
    ],
)
def test_segmenters_and_fills_are_made_of_short_forms(text: str, options: dict[str, object]) -> None:
    class Striped:
        def __init__(self, *, stripes: int = 4, wide: float = 1) -> None:
            self.options = {"stripes": stripes, "wide": wide}

    class Plugin:
        @ap.hookimpl
        def apportion_register_segmenters(self, register: ap.Register) -> None:
            register("striped", Striped, summary="s")

        @ap.hookimpl
        def apportion_register_fills(self, register: ap.Register) -> None:
            register("striped", Striped, summary="s")

    plugins = load_plugins([Plugin()])
    for kind in ("segmenters", "fills"):
        assert plugins.make(kind, text).options == {"stripes": 4, "wide": 1} | options
        with pytest.raises(
            ap.InputError, match=f"{kind[:-1]} 'striped' has no option 'strips'.*Did you mean 'stripes'"
        ):
            plugins.make(kind, "striped:strips=3")
    with pytest.raises(ap.UnknownNameError, match="No segmenter is called 'stripd'. Did you mean 'striped'"):
        plugins.make("segmenters", "stripd:3")


def segmenter(segment: Any) -> Any:
    return type("Odd", (), {"__doc__": "Odd.", "segment": segment})


def fill(fill: Any) -> Any:
    return type("Odd", (), {"__doc__": "Odd.", "once": True, "fill": fill})


def needs_a_package(*given: object) -> Any:
    try:
        import a_package_that_nobody_has
    except ImportError as error:
        raise ap.InputError("pip install it") from error
    return a_package_that_nobody_has


@pytest.mark.parametrize(
    ("kind", "factory", "found"),
    [
        ("segmenters", segmenter(lambda self, pixels, processor: []), "returned no region instead of Regions"),
        ("segmenters", segmenter(lambda self, pixels, processor: [3]), "returned 3 instead of Regions of 48 × 96 pixe"),
        (
            "segmenters",
            segmenter(lambda self, pixels, processor: [ap.Region("a", pixels[1:, :, 0] > 0)]),
            "instead of Regions",
        ),
        ("segmenters", segmenter(lambda self, pixels, processor: 1 / 0), "fails when it is tried: ZeroDivisionError"),
        ("segmenters", segmenter(needs_a_package), "not run: pip install it"),
        ("fills", fill(lambda self, pixels, absent, seed: pixels / 2), "returned float64 (48, 96, 3) instead of a pic"),
        ("fills", fill(lambda self, pixels, absent, seed: None), "returned NoneType instead of a picture of uint8"),
        ("fills", fill(needs_a_package), "not run: pip install it"),
        ("fills", type("Odd", (), {"__doc__": "Odd.", "fill": lambda self: 3}), "is a Odd without 'once'"),
    ],
)
def test_segmenters_and_fills_are_tried(kind: str, factory: Any, found: str) -> None:
    """By `apportion plugins check`; a package that is missing is not a fault."""

    def register(self: object, register: Any) -> None:
        register("odd", factory, summary="s")

    hook = ap.hookimpl(register)
    plugins = load_plugins([type("Plugin", (), {f"apportion_register_{kind}": hook})()])
    (finding,) = examine(plugins.entries_of("Plugin"), plugins)
    assert found in (finding.tried or finding.faults[0])
    assert bool(finding.faults) == ("not run" not in found)


def test_every_hook_is_documented() -> None:
    from apportion.hooks import hookspecs

    assert len(hook_names()) == 18
    for name in hook_names():
        doc = getattr(hookspecs, name).__doc__
        assert doc.startswith("Called"), name
        assert "eturns" in doc or "observer" in doc, name
