"""The documentation is true: its code runs, its generated pages are current, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

import apportion as ap
import apportion.testing
from apportion.hooks.manager import AUTOLOAD_VARIABLE, DISABLE_VARIABLE, SWITCHED, Plugins, load_plugins
from apportion.hooks.registry import KINDS
from apportion.hooks.validation import hook_names
from apportion.scaffold.distribution import KINDS as NEW_KINDS
from apportion.scaffold.distribution import Distribution
from apportion.testing.check.report import examine
from forks import Forks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXTEND = ROOT / "docs" / "extend"


def python_blocks(page: Path) -> list[tuple[str, str]]:
    """The title (a file's name, if there is one) and the code of each block."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```', text, flags=re.S | re.M)


WHOLE = ("docs/how-to/attention.md",)
"""Guides that look at late layers."""


def open_short_models(monkeypatch: pytest.MonkeyPatch, short: ap.Explainer) -> None:
    """Where a page opens the demo model it gets one that is open already."""
    opens = ap.Explainer

    def explainer(model: object, **options: object) -> ap.Explainer:
        return short if model == "smollm2" and not options else opens(model, **options)

    monkeypatch.setattr(ap, "Explainer", explainer)


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/tutorials/first.md",
        "docs/how-to/choose-targets.md",
        "docs/how-to/texts.md",
        "docs/how-to/context-reliance.md",
        "docs/how-to/budget.md",
        "docs/how-to/many-prompts.md",
        "docs/how-to/judge-faithfulness.md",
        "docs/how-to/compare-methods.md",
        "docs/how-to/attention.md",
        "docs/how-to/gradients.md",
        "docs/how-to/figures.md",
        "docs/how-to/same-as-captum.md",
        "docs/how-to/from-captum.md",
        "docs/how-to/from-inseq.md",
        "docs/how-to/encoder-decoder-models.md",
    ],
)
def test_the_code_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.startswith("docs/how-to/"):
        # Guides need a model that runs; the README and the tutorials open the whole one.
        name = "smollm2" if page in WHOLE else "few_layers"
        open_short_models(monkeypatch, request.getfixturevalue(name))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for _, block in python_blocks(ROOT / page):
        exec(compile(block, page, "exec"), namespace)
    if "dave.png" in (ROOT / page).read_text(encoding="utf-8"):
        assert (tmp_path / "dave.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_the_shell_on_many_prompts_runs(tmp_path: Path, tiny_model_dir: Path, forks: Forks) -> None:
    """From top to bottom in one folder, with a small model."""
    page = (ROOT / "docs/how-to/many-prompts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.S | re.M)
    model = f'case $1 in run|evaluate) set -- "$@" --model "{tiny_model_dir}";; esac'
    script = "".join([f'apportion() ( {model}; {forks.command()} -m apportion "$@"; )\n', *blocks])
    ended = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "row.png").stat().st_size > 10_000
    found = {row_id: result.target_text for row_id, result in ap.load_results(tmp_path / "results")}
    assert found == {"france": " Paris", "italy": " Rome", "3": " Paris"}


def test_the_page_on_onnx_runs(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    ((_, code),) = python_blocks(ROOT / "docs/how-to/onnx.md")
    namespace: dict[str, object] = {}
    exec(compile(code, "onnx.md", "exec"), namespace)
    result = namespace["result"]
    assert isinstance(result, ap.Attribution) and result.provenance.backend == "onnxruntime"


# --- the pages on extending --------------------------------------------------------------------------------------

EXAMPLES = [page for page in sorted(EXTEND.glob("*.md")) if python_blocks(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_code_on_extending_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, which is the module that the page writes."""
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page)
    module = ModuleType(next(Path(title).stem for title, _ in blocks if title))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for _, block in blocks:
        exec(compile(block, page.name, "exec"), vars(module))


@pytest.mark.slow
def test_the_examples_on_extending_keep_their_contracts(tmp_path: Path, forks: Forks) -> None:
    """Each page's files, as a reader would save them."""
    folders = []
    for page in EXAMPLES:
        folders.append(tmp_path / page.stem)
        for title, block in python_blocks(page):
            if title:
                file = tmp_path / page.stem / title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block, encoding="utf-8")
    path = {"PYTHONPATH": os.pathsep.join([*map(str, folders), *sys.path])}
    done = forks.pytest("--import-mode=importlib", *folders, cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100


@pytest.mark.filterwarnings("error")
def test_the_method_of_the_readme_keeps_to_small_budgets() -> None:
    (code,) = [code for _, code in python_blocks(ROOT / "README.md") if "class Opposites" in code]
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    with apportion.testing.tiny_explainer() as explainer:
        for budget in (1, 2, 3):
            with pytest.raises(ap.BudgetError, match="Two pairs take 4 evaluations"):
                explainer.attribute("a b c", " x", method=namespace["Opposites"](), budget=budget)
        assert explainer.attribute("a b c", " x", method=namespace["Opposites"](), budget=4).std_error is not None


PROTOCOLS = {
    "inputs": ("inputs.InputAdapter",),
    "samplers": ("methods.Sampler",),
    "methods": ("methods.Method",),
    "targets": ("targets.TargetFunction",),
    "visualizers": ("visualizers.Visualizer",),
    "backends": ("backend.Backend", "backend.Session"),
    "metrics": ("metrics.Metric",),
    "segmenters": ("pictures.Segmenter",),
    "fills": ("pictures.Fill",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_extension_point_has_its_page(kind: str) -> None:
    """With protocol, hook, contract, an example of a subclass; and a row in the overview."""
    page, overview = ((EXTEND / name).read_text() for name in (f"{kind}.md", "index.md"))
    contract = f"{kind[:-1].capitalize()}Contract"
    assert contract in apportion.testing.__all__
    assert f"<!-- reference: apportion.testing.{contract} -->\n" in page
    assert f"({contract}):" in page
    assert all(f"<!-- reference: apportion.protocols.{protocol} -->\n" in page for protocol in PROTOCOLS[kind])
    (row,) = [line for line in overview.splitlines() if f"]({kind}.md) |" in line]
    assert kind[:-1] in NEW_KINDS
    for wanted in (f"`apportion_register_{kind}`", f"`{contract}`", f"`{kind[:-1]}`"):
        assert wanted in row
    assert f"def apportion_register_{kind}(" in page


def test_every_contract_and_hook_is_on_its_page() -> None:
    pages = {page.stem: page.read_text() for page in EXTEND.glob("*.md")}
    contracts = {f"{kind[:-1].capitalize()}Contract" for kind in KINDS} | {"WhiteBoxMethodContract"}
    assert "<!-- reference: apportion.testing.WhiteBoxMethodContract -->\n" in pages["white-box-methods"]
    assert contracts == {name for name in apportion.testing.__all__ if name.endswith("Contract")}
    picture = (ROOT / "docs/images/lifecycle.svg").read_text()
    for hook in hook_names():
        assert f"`{hook}`" in pages["index"], hook
        kind = hook.removeprefix("apportion_register_")
        if kind in KINDS:
            assert re.search(rf">[^<]*\b{kind}\b[^<]*<", picture), f"{hook} is not in the picture"
        else:
            assert f">{hook}<" in picture, f"{hook} is not in the picture"
            assert f"`{hook}`" in pages["observers"] or f"def {hook}(" in pages["inputs"], hook


def test_every_built_in_is_in_the_directory() -> None:
    directory, observers = ((EXTEND / name).read_text() for name in ("directory.md", "observers.md"))
    for kind, registry in load_plugins().registries.items():
        for entry in registry:
            if entry.plugin.startswith("apportion_"):
                assert f"| `{entry.name}` | [{kind[:-1]}]({kind}.md) |" in directory, entry
    for switch, path in SWITCHED.items():
        assert f"| `{switch}` | [observer](observers.md) |" in directory
        assert f"- **`{switch}`** is `{path}`" in observers


# --- signatures in the examples, the templates and the text -----------------------------------------------------------


def signature_of(function: ast.FunctionDef) -> inspect.Signature:
    """Without ``self``; annotations are text, and defaults ``None``."""
    function.args.defaults = [ast.Constant(None) for _ in function.args.defaults]
    function.args.kw_defaults = [default and ast.Constant(None) for default in function.args.kw_defaults]
    namespace: dict[str, object] = {}
    exec(f"from __future__ import annotations\ndef found({ast.unparse(function.args)}): ...", namespace)
    return without_self(inspect.signature(namespace["found"]))


def without_self(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "self"])


def parsed(text: str) -> inspect.Signature:
    """The signature in a text such as ``name(a, *, b, **options) -> X``."""
    return signature_of(ast.parse(f"def {text}: ...").body[0])


def classes_in(source: str) -> Iterator[tuple[str, dict[str, inspect.Signature]]]:
    """Each class with its methods, without fixtures of tests; the code is not run."""
    for found in ast.walk(ast.parse(source)):
        if isinstance(found, ast.ClassDef):
            methods = [member for member in found.body if isinstance(member, ast.FunctionDef)]
            own = [method for method in methods if "pytest.fixture" not in map(ast.unparse, method.decorator_list)]
            yield found.name, {method.name: signature_of(method) for method in own}


def protocols(kind: str) -> dict[str, dict[str, inspect.Signature]]:
    """Methods of all protocols in the module that defines this kind's."""
    module = importlib.import_module(f"apportion.protocols.{PROTOCOLS[kind][0].split('.')[0]}")
    members = [member for member in vars(module).values() if getattr(member, "_is_protocol", False)]
    return {m.__name__: protocol_methods(m) for m in members if m.__module__ == module.__name__}


def protocol_methods(protocol: type) -> dict[str, inspect.Signature]:
    """Methods and their signatures; for one typed ``Callable[..., X]``, the signature in the docstring."""
    methods = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    public = [name for name in methods if name == "__call__" or not name.startswith("_")]
    found = {name: without_self(inspect.signature(methods[name])) for name in public}
    for name, member in vars(protocol).items():
        if isinstance(member, property) and str(inspect.signature(member.fget).return_annotation).startswith(
            "Callable"
        ):
            found[name] = parsed(re.search(rf"``({name}[(][^`]*)``", inspect.getdoc(protocol))[1])
    return found


def deviation(found: inspect.Signature, wanted: inspect.Signature) -> str:
    """The difference from the protocol's parameters in name, order or kind; defaults and annotations are ignored.

    If the protocol has ``**options``, keyword-only parameters with defaults may be added.
    """
    ours, theirs = (
        {p.name: p.kind for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        for signature in (found, wanted)
    )
    if len(theirs) < len(wanted.parameters):
        options = [p.name for p in found.parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
        ours = {name: kind for name, kind in ours.items() if name in theirs or name not in options}
    return "" if list(ours.items()) == list(theirs.items()) else f"{found} should be {wanted}"


@pytest.mark.parametrize("kind", KINDS)
def test_examples_and_templates_have_the_protocols_signatures(kind: str) -> None:
    new = Distribution.of("my-own", kind[:-1])
    page = "\n".join(code for _, code in python_blocks(EXTEND / f"{kind}.md"))
    for place, source in (("the page", page), ("the template", new.files()[f"{new.module}.py"])):
        implemented = set()
        for name, methods in classes_in(source):
            for protocol, wanted in protocols(kind).items():
                if wanted.keys() <= methods.keys():
                    implemented.add(protocol)
                    wrong = {part: deviation(methods[part], wanted[part]) for part in wanted}
                    assert not any(wrong.values()), f"{name} of {place} is not a {protocol}: {wrong}"
        missing = {protocol.split(".")[1] for protocol in PROTOCOLS[kind]} - implemented
        assert not missing, f"{place} has no class with all methods of {missing}"


def test_quoted_signatures_are_the_protocols() -> None:
    """For instance ``load(model, …)``, where the dots stand for omitted parameters."""
    known: dict[str, list[inspect.Signature]] = {}
    for methods in (methods for kind in KINDS for methods in protocols(kind).values()):
        for name, signature in methods.items():
            known.setdefault(name, []).append(signature)
    quoted = set()
    for page in sorted(EXTEND.glob("*.md")):
        # A fixture of a contract may be called like a function of a protocol.
        prose = re.sub(r"<!-- reference: apportion\.testing.*?<!-- end of", "", page.read_text("utf-8"), flags=re.S)
        # Calls have quotation marks, equals signs or numbers; signatures do not.
        for text, name in re.findall(r"`(([a-z_]+)[(][a-z_, *…]*[)])(?: -> \w+)?`", prose):
            if name in known:
                quoted.add(name)
                reasons = [deviation(*without_the_rest(parsed(text.replace("…", "*_")), one)) for one in known[name]]
                assert "" in reasons, f"{page.name} quotes {text}: {reasons}"
    assert {"run", "sample", "render", "__call__", "availability", "load", "measure", "segment", "fill"} <= quoted


def without_the_rest(quoted: inspect.Signature, signature: inspect.Signature) -> tuple[inspect.Signature, ...]:
    """Both signatures, cut down to the quoted parameters if dots stand for the rest."""
    names = [name for name in quoted.parameters if name != "_"]
    if len(names) == len(quoted.parameters):
        return quoted, signature
    return tuple(
        one.replace(parameters=[p for name, p in one.parameters.items() if name in names])
        for one in (quoted, signature)
    )


# --- the page on debugging -------------------------------------------------------------------------------------

HOOK = "import apportion as ap\n@ap.hookimpl\n"
METHODS = f"{HOOK}def apportion_register_methods(register):\n    "
REASONS = {
    "import lime_base": "ModuleNotFoundError: No module named 'lime_base'",
    "half = = 1": "SyntaxError: invalid syntax (apportion_half.py, line 1)",
    f"{HOOK}def apportion_register_method(register): ...": (
        "There is no hook 'apportion_register_method'. Did you mean 'apportion_register_methods'?"
    ),
    f"{HOOK}def apportion_register_methods(registry): ...": (
        "'apportion_register_methods' is not given 'registry'. Did you mean 'register'? It is given: register."
    ),
    "def apportion_register_methods(register): ...": (
        "The function 'apportion_register_methods' is not marked with @apportion.hookimpl, so it would never run."
    ),
    "": "'half' implements no hook. Mark functions called apportion_configure, ",
    "APPORTION_API_VERSION = 2": (
        "It is written for plugin API version 2, and this is apportion 0.1.0 with version 1. Upgrade apportion."
    ),
    "APPORTION_API_VERSION = '1'": "Its APPORTION_API_VERSION must be a whole number such as 1; it is '1'.",
    f"{METHODS}register('shapley', object, summary='s')": (
        "The method 'shapley' of the plugin 'half' is already registered by 'apportion_plugins.methods'; one of them "
        "has to take another name."
    ),
    f"{METHODS}register('my method', object, summary='s')": (
        "'my method' cannot be the name of a method; use letters, digits, '_' and '-', at most 60 characters."
    ),
    f"{METHODS}register('half', object)": "The method 'half' needs a summary, one line for listings.",
    f"{METHODS}1 / 0": "ZeroDivisionError: division by zero (in apportion_register_methods, apportion_half.py, line 4)",
    "import sys\nsys.exit(3)": "SystemExit: 3",
}
"""Modules that fail to load, and the reasons that the page on debugging gives."""


def failure(source: str, *, times: int = 1) -> str:
    """Why a plugin with this source does not load."""

    def load() -> ModuleType:
        module = ModuleType("apportion_half")
        exec(compile(source, "apportion_half.py", "exec"), vars(module))
        return module

    plugins = load_plugins()
    for _ in range(times):
        plugins.add("half", "apportion-half 0.1.0", load)
    (error,) = [failed.error for failed in plugins.failed if failed.name == "half"]
    return error.replace(f"apportion {ap.__version__} with", "apportion 0.1.0 with")


@pytest.mark.parametrize(("source", "reason"), REASONS.items(), ids=REASONS.values())
def test_the_page_on_debugging_has_the_real_messages(source: str, reason: str) -> None:
    assert reason in failure(source)
    assert reason in (EXTEND / "debug.md").read_text()


def test_the_page_on_debugging_has_the_other_messages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    half = ModuleType("apportion_half")
    monkeypatch.setitem(sys.modules, "apportion_half", half)
    twice = failure(f"{HOOK}def apportion_before_run(request): ...", times=2)
    missing = Plugins()
    missing.add("half", "apportion-half 0.1.0", EntryPoint("half", "apportion_half:plugin", "apportion").load)

    class Half:
        """Says too little."""

        estimand = "nothing"

        @ap.hookimpl
        def apportion_register_methods(self, register: ap.Register) -> None:
            register("haalf", "apportion_half:Haalf", summary="s")
            register("half", Half, summary="s")

    with pytest.raises(ap.PluginError) as of_a_class:
        load_plugins([Half])
    plugins = load_plugins([Half()])
    haalf, short = examine(plugins.entries_of("Half"), plugins)
    page = (EXTEND / "debug.md").read_text()
    for message, wanted in {
        twice: "Another plugin called 'half' is loaded; give one of them another name.",
        missing.failed[0].error: "AttributeError: module 'apportion_half' has no attribute 'plugin'",
        str(of_a_class.value): "Half is a class; pass an object of it: Half().",
        haalf.faults[0]: "AttributeError: module 'apportion_half' has no attribute 'Haalf'",
        short.faults[0]: "The method 'half' is a Half without 'requires', 'run'.",
    }.items():
        assert wanted in message
        assert wanted in page
    assert DISABLE_VARIABLE in page
    assert f"Installed plugins are not loaded: {AUTOLOAD_VARIABLE}=0." in page


# --- all pages ------------------------------------------------------------------------------------------------------


def test_generated_pages_are_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.syspath_prepend(tmp_path / "docs")
    spec = importlib.util.spec_from_file_location("generate", tmp_path / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.main()
    for name in generate.PAGES:
        assert (tmp_path / "docs" / name).read_text() == (ROOT / "docs" / name).read_text(), f"run make docs: {name}"


def test_every_hook_and_name_is_in_the_reference() -> None:
    """In Markdown that a code host shows, without directives for a site."""
    assert not [page for page in PAGES if re.search("^:::", page.read_text(), flags=re.M)]
    api = (ROOT / "docs/reference/api.md").read_text()
    unlisted = {"__version__", "hookimpl", "Register"}
    assert {name for name in ap.__all__ if f"### `{name}`\n" not in api} == unlisted
    assert "#### `Explainer.attribute`\n\n```py\nattribute(\n    prompt: object,\n    target: str | Seq" in api
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
