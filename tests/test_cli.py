"""The command line: what it prints where, what it writes, and how it ends."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import typer
from rich.cells import cell_len
from rich.console import Console

import apportion as ap
from apportion import explainer as explainer_module
from apportion.cli import kinds, listing, outputs
from apportion.cli.options.command import Without, add_command, in_panel
from apportion.cli.parse import json_or_text, memory_size, usage_error
from apportion.cli.wording import in_shell_words
from apportion.errors import ApportionError
from apportion.hooks import manager as plugins_module
from apportion.hooks.docstrings import description, parameter_notes
from apportion.hooks.manager import load_plugins
from apportion.results.attribution import Attribution
from apportion.testing import chats
from commands import Ended, Run, plain

ROOT = Path(__file__).parent.parent
TEMPLATE = ["--template", "{name} is a {job}. {pronoun}", "--value", "name=Dave", "--value", "job=lawyer"]
TEMPLATE += ["--value", "pronoun=He"]


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def attribute(run: Run, tiny_model_dir: Path) -> Run:
    """``apportion attribute`` with the tiny model."""
    return functools.partial(run, "attribute", "--model", tiny_model_dir)


class ModelLoadedError(Exception):
    """The model was loaded where it should not have been."""


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ModelLoadedError

    monkeypatch.setattr(explainer_module.Explainer, "__init__", refuse)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the library is asked for; nothing is run."""
    seen: list[dict[str, Any]] = []

    class Recorder(explainer_module.Explainer):
        def __init__(self, model: object, **options: Any) -> None:
            seen.append({"model": model, **options})

        @functools.wraps(explainer_module.Explainer.attribute)
        def attribute(self, **arguments: Any) -> Attribution:
            seen[-1] |= arguments
            raise ApportionError("only asked")

        def close(self) -> None: ...

    monkeypatch.setattr(explainer_module, "Explainer", Recorder)
    return seen


def command(*words: str | Path, path: Path | None = None) -> list[str]:
    """A command of a new process, with ``path`` importable."""
    code = f"import sys; sys.path.insert(0, {str(path or ROOT)!r}); from apportion.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, words)]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    """A distribution with one plugin, as pip would leave it."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[apportion]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(folder))
    plugins_module.installed_plugins.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More only get in each other's way with a model this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def fresh_plugins() -> Iterator[None]:
    yield
    plugins_module.installed_plugins.cache_clear()


# --- help and versions ---------------------------------------------------------------------------------------------


def test_version(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.out) == (0, f"apportion {ap.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "attribute",
        "show",
        "bench",
        "methods",
        "methods list",
        "methods show",
        "backends",
        "backends list",
        "backends show",
        "backends check",
        "plugins",
        "plugins list",
        "plugins show",
        "plugins check",
    ],
)
def test_help_everywhere(run: Run, words: str) -> None:
    ended = run(*words.split(), "--help")
    assert ended.code == 0
    assert "Usage: apportion" in plain(ended.out)
    assert ended.err == ""
    for here in (ROOT, Path.home()):
        assert f"{here}/" not in ended.out


def test_help_of_attribute_has_panels_and_defaults(run: Run) -> None:
    text = plain(run("attribute", "--help").out)
    for panel in ("Model", "Features", "Target", "Method", "Output", "Examples"):
        assert f" {panel} " in text.replace(":", " ")
    for fact in ("[default: smollm2]", "512MiB", "nats", "{name} lives in {city}", "[1, 2]"):
        assert fact in text


def test_light_commands_import_nothing_heavy(tmp_path: Path, attribute: Run) -> None:
    saved = tmp_path / "a.json"
    assert attribute("ab cd", "--target", "x", "--save", saved).code == 0
    commands = [["--help"], ["attribute", "--help"], ["targets"], ["views"], ["plugins", "list"], ["show", str(saved)]]
    code = (
        "import sys\nfrom apportion.cli import main\n"
        f"for words in {commands!r}: assert main(words) == 0\n"
        "sys.exit(', '.join({'torch', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- attribute -----------------------------------------------------------------------------------------------------


def test_json_is_the_saved_result(attribute: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    ended = attribute("ab cd ef", "--target", " gh", "--json", "--save", path, "--seed", "3")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json() == json.loads(path.read_text())
    result = Attribution.load(path)
    assert result.feature_names == ("ab", "cd", "ef")
    assert result.target_text == " gh"
    assert result.provenance.seed == 3
    assert result.provenance.method == "shapley"


def test_numbers_are_those_of_the_library(attribute: Run, tiny_model_dir: Path) -> None:
    found = attribute("ab cd ef", "--target", " gh", "--method", "ablation", "--json").json()
    with ap.Explainer(str(tiny_model_dir)) as explainer:
        expected = explainer.attribute("ab cd ef", " gh", method="ablation")
    assert found["values"] == pytest.approx(expected.values.tolist(), abs=1e-6)


def test_the_tokens_of_the_target_are_features_on_request(attribute: Run) -> None:
    words = ["ab cd", "--target", " xyz", "--method", "ablation"]
    found = attribute(*words, "--attribute-generated", "--json").json()
    assert [feature.get("generated") for feature in found["features"]] == [None, None, 0, 1, 2]
    assert len(attribute(*words, "--json").json()["features"]) == 2


def test_terminal_view_is_the_default(attribute: Run) -> None:
    ended = attribute("ab cd", "--target", "x")
    assert ended.code == 0
    assert "Shapley value" in ended.out
    assert "ab" in ended.out


@pytest.mark.parametrize(
    ("name", "options", "magic"),
    [
        ("a.png", [], b"\x89PNG"),
        ("a.PNG", [], b"\x89PNG"),
        ("a.svg", ["--view", "bar", "--view-option", "sort=true"], b"<?xml"),
        ("a.pdf", [], b"%PDF"),
        ("a.html", [], b"<"),
    ],
)
def test_plot(attribute: Run, tmp_path: Path, name: str, options: list[str], magic: bytes) -> None:
    path = tmp_path / name
    path.write_text("old")
    ended = attribute("ab cd", "--target", "x", "--plot", path, "--json", *options)
    assert (ended.code, ended.err) == (0, "")
    assert path.read_bytes().startswith(magic)
    assert names(tmp_path) == [name]


def test_generated_target(attribute: Run) -> None:
    found = attribute("ab cd", "--max-new-tokens", "3", "--json").json()
    assert len(found["target_tokens"]) <= 3


def test_flags_reach_the_library(run: Run, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    words = ["--features", "tokens", "--baseline-id", "7", "--keep", "a", "--keep-index", "-1", "--target-ids", "1, 2"]
    words += ["--memory-budget", "1.5KiB", "--device", "cpu", "--dtype", "float64", "--backend", "torch"]
    words += [
        "--tokenizer",
        "t",
        "--no-share-prefixes",
        "--allow-missing",
        "--no-progress",
        "--budget",
        "40",
        "--seed",
        "2",
        "--target-fn",
        "contrast_prob_diff",
    ]
    words += ["--contrast", " no", "--target-option", "top_k=3", "--until", "0.5", "--step-score", "prob"]
    words += ["--attribute-generated"]
    words += ["--step-score", "kl_divergence", "--step-score-option", "kl_divergence.top_k=3"]
    words += ["--method", "permutation", "--option", "antithetic=false", "-o", "n-permutations=6"]
    words += ["--cache", "--run-log", str(tmp_path / "runs.jsonl"), "--backend-option", "compile=true"]
    ended = run("attribute", "a b c", "--model", "m", *words)
    assert (ended.code, ended.err) == (1, "error: only asked")
    assert calls == [
        {
            "model": "m",
            "tokenizer": "t",
            "backend": "torch",
            "device": "cpu",
            "dtype": "float64",
            "memory_budget": 1536,
            "backend_options": {"compile": True},
            "allow_missing": True,
            "share_prefixes": False,
            "progress": "never",
            "cache": True,
            "run_log": tmp_path / "runs.jsonl",
            "prompt": ap.Text("a b c", by="tokens", baseline=7, keep=("a", -1)),
            "target": [1, 2],
            "target_fn": "contrast_prob_diff",
            "contrast": " no",
            "target_options": {"top_k": 3},
            "step_scores": [("prob", {}), ("kl_divergence", {"top_k": 3})],
            "attribute_generated": True,
            "generate": None,
            "samples": None,
            "method": "permutation",
            "budget": 40,
            "until": 0.5,
            "seed": 2,
            "antithetic": False,
            "n_permutations": 6,
        }
    ]


def test_generation_options(run: Run, calls: list[dict[str, Any]]) -> None:
    run("attribute", "a b", "--generate", "do_sample=true", "--generate", "temperature=0.5", "--max-new-tokens", "4")
    assert calls[0]["generate"] == {"do_sample": True, "temperature": 0.5, "max_new_tokens": 4}
    assert calls[0]["target"] is None


@pytest.mark.parametrize(
    ("words", "stop"),
    [
        (["--stop", r"\n"], ["\n"]),
        (["--stop", ".", "--stop", r"\tx"], [".", "\tx"]),
        (["--stop", ""], []),
        (["--generate", "stop=null"], None),
    ],
)
def test_stop_texts(run: Run, calls: list[dict[str, Any]], words: list[str], stop: list[str] | None) -> None:
    run("attribute", "a b", *words)
    assert calls[0]["generate"] == {"stop": stop}


# --- prompts -------------------------------------------------------------------------------------------------------


def test_alternatives_and_groups(run: Run, calls: list[dict[str, Any]]) -> None:
    template = "{name} of {city}, {state}, {job}. {pronoun}"
    words = ["--value", "name=Dave", "--value", "city=Palm Coast", "--value", "state=FL", "--value", "job=a=b"]
    words += ["--value", "pronoun=He", "--baseline", "name=Sarah", "--baseline", "name=Mary", "--baseline", "job="]
    words += ["--baseline", "city,state=Seattle,WA", "--baseline", 'city, state=["Washington, D.C.", "DC"]']
    run("attribute", "--template", template, *words, "--group", "name, pronoun", "--draws", "5")
    assert calls[0]["prompt"] == ap.Template(
        template,
        values={"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "a=b", "pronoun": "He"},
        baselines={
            "name": ["Sarah", "Mary"],
            "job": [""],
            ("city", "state"): [("Seattle", "WA"), ("Washington, D.C.", "DC")],
        },
        groups=[("name", "pronoun")],
        draws=5,
    )


def test_template_is_scored(attribute: Run) -> None:
    words = ["--baseline", "name=Ann", "--baseline", "name=Eve", "--group", "name,pronoun", "--target", " x"]
    found = attribute(*TEMPLATE, *words, "--json").json()
    assert [feature["name"] for feature in found["features"]] == ["name + pronoun", "job"]
    assert found["provenance"]["evaluations"] == 6  # two alternatives of the name where it is absent


def test_positional_slots(attribute: Run) -> None:
    found = attribute("--template", "{} and {}", "--value", "1=b", "--value", "0=a", "--target", "x", "--json").json()
    assert [segment[0] for segment in found["segments"]] == ["a", " and ", "b"]


def test_prompt_from_stdin_and_file(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b\n\n"))
    run("attribute", "-")
    path = tmp_path / "prompt.txt"
    path.write_bytes("ä b\r\n".encode())
    run("attribute", "--prompt-file", path, "--text-baseline", "…")
    assert [call["prompt"] for call in calls] == [ap.Text("a b\n"), ap.Text("ä b", baseline="…")]


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where to?"}]


def test_chats_from_files_and_stdin(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(TALK))
    run("attribute", "--chat", path)
    tools = [{"name": "clock"}]
    whole = {"messages": TALK, "tools": tools, "template_options": {"thinking": False}}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(whole)))
    run(
        "attribute",
        "--chat",
        "-",
        "--features",
        "sentences",
        "--text-baseline",
        "",
        "--keep",
        "user",
        "--keep-index",
        "0",
    )
    assert [call["prompt"] for call in calls] == [
        ap.Chat(TALK),
        ap.Chat(TALK, "sentences", "", ("user", 0), tools, template_options={"thinking": False}),
    ]


def test_a_chat_is_scored(attribute: Run, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": TALK, "chat_template": chats.CHATML}))
    found = attribute("--chat", path, "--target", "x", "--json").json()
    assert [feature["name"] for feature in found["features"]] == ["system"]
    path.write_text(json.dumps(TALK))
    assert "has no chat template" in attribute("--chat", path, "--target", "x").err


def test_a_plain_prompt_as_a_message(run: Run, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("One.\nTwo.\n")
    run("attribute", "Who is it?", "--as-chat")
    run("attribute", "--prompt-file", path, "--as-chat", "--by", "lines", "--keep", "One.", "--text-baseline", "")
    assert [call["prompt"] for call in calls] == [
        ap.Chat([{"role": "user", "content": "Who is it?"}], "words", keep=()),
        ap.Chat([{"role": "user", "content": "One.\nTwo."}], "lines", "", keep=("One.",)),
    ]


def test_documents(run: Run, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "sub" / "a.txt"]
    for path in paths:
        path.write_text(f"{path.name} is here.\n")
    words = ["--document", paths[0], "--document", paths[1]]
    run("attribute", "Who?", *words)
    run(
        "attribute", "Who?", *words, "--by", "words", "--layout", "{context} {question}", "--as-chat", "--keep", "b.txt"
    )
    run("attribute", "--prompt-file", paths[1], "--document", paths[0], "--document", paths[2])
    both = {"a.txt": "a.txt is here.", "b.txt": "b.txt is here."}
    assert [call["prompt"] for call in calls] == [
        ap.Documents("Who?", both),
        ap.Documents("Who?", both, "words", "{context} {question}", keep=("b.txt",), as_chat=True),
        ap.Documents("b.txt is here.", {str(paths[0]): "a.txt is here.", str(paths[2]): "a.txt is here."}),
    ]


def test_chat_and_document_faults(run: Run, no_model: None, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    for text, message in [
        ("{", "is not JSON"),
        ("3", "The chat in FILE must be a JSON list of messages, or an object with 'messages'; it is 3."),
        ("null", "it is null."),
        (" \n", "The chat is empty: there is no text in the file FILE."),
        ("[]", "The list of messages must not be empty"),
        ('{"tools": []}', "has no 'messages'"),
        ('{"message": []}', "No part of a chat is called 'message'. Did you mean 'messages'?"),
        ('{"messages": [], "by": "words"}', "No part of a chat is called 'by'"),
        ('[{"role": "user"}]', "has no content"),
    ]:
        path.write_text(text)
        ended = run("attribute", "--chat", path)
        assert (ended.code, ended.out) == (1, "")
        assert message.replace("FILE", str(path)) in ended.err
    assert "Cannot read the chat file" in run("attribute", "--chat", tmp_path / "no.json").err
    assert "Cannot read the document file" in run("attribute", "a", "--document", tmp_path / "no.txt").err
    path.write_text(" ")
    assert (
        f"The document is empty: there is no text in the file {path}" in run("attribute", "a", "--document", path).err
    )
    assert "is given twice" in run("attribute", "a", "--document", path, "--document", path).err
    assert "is an input of this command" in run("attribute", "--chat", path, "--save", path).err


def test_prompt_file_faults(run: Run, no_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run("attribute", "--prompt-file", tmp_path / "no.txt")
    assert (missing.code, missing.err.count("\n")) == (1, 0)
    assert missing.err.startswith("error: Cannot read the prompt file")
    (tmp_path / "empty.txt").write_text("\n")
    empty = run("attribute", "--prompt-file", tmp_path / "empty.txt").err
    assert empty == f"error: The prompt is empty: there is no text in the file {tmp_path / 'empty.txt'}."
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "The prompt is empty: there is no text on stdin." in run("attribute", "--prompt-file", "-").err


NOT_UTF8 = {
    "looks like UTF-16. ": "Käse ist alle".encode("utf-16"),
    "looks like UTF-16LE": "Käse ist alle".encode("utf-16-le"),
    "looks like UTF-16BE": "Käse ist alle".encode("utf-16-be"),
    "looks like UTF-32": "Käse ist alle".encode("utf-32"),
    "byte 1 is 0xE4, and it looks like Latin-1": "Käse ist alle".encode("latin-1"),
    "looks like a binary file": b"\x89PNG\r\n\x1a\n\x00\x00",
    "ends in the middle of a character": "Käse ä".encode()[:-1],
}


@pytest.mark.parametrize("words", [["--prompt-file"], ["--chat"], ["Who?", "--document"]])
def test_files_that_are_not_utf8_are_refused(run: Run, no_model: None, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "my text.txt"
    for message, content in NOT_UTF8.items():
        path.write_bytes(content)
        ended = run("attribute", *words, path)
        assert (ended.code, ended.out) == (1, "")
        assert f"file {path} is not UTF-8 text" in ended.err
        assert message in ended.err
        if "middle" not in message and "binary" not in message:
            assert f"-t UTF-8 '{path}' > '{tmp_path / 'my text-utf8.txt'}'" in ended.err


def test_stdin_that_is_not_utf8_is_refused(run: Run, no_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for message, content in NOT_UTF8.items():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="latin-1"))
        ended = run("attribute", "-")
        assert (ended.code, ended.out) == (1, "")
        assert "The prompt on stdin is not UTF-8 text" in ended.err
        assert message in ended.err


def test_byte_order_marks_are_dropped(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(TALK), encoding="utf-8-sig")
    run("attribute", "--chat", path)
    path.write_text("ä b", encoding="utf-8-sig")
    run("attribute", "--prompt-file", path)
    run("attribute", "Who?", "--document", path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffä b\r\n".encode()), encoding="latin-1"))
    run("attribute", "-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeffä b\n"))
    run("attribute", "-")
    text = ap.Text("ä b")
    assert [call["prompt"] for call in calls] == [
        ap.Chat(TALK),
        text,
        ap.Documents("Who?", {"chat.json": "ä b"}),
        text,
        text,
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--template", "{a", "--value", "a=b"], "not a valid format string"),
        (["--template", "{a} {b}", "--value", "a=b"], "placeholders 'b' have no value"),
        (["--template", "{a}", "--value", "a=b", "--value", "c=d"], "which the template does not use"),
        ([*TEMPLATE, "--group", "name,pronoum"], "Did you mean 'pronoun'?"),
        ([*TEMPLATE, "--baseline", "nam=x"], "Did you mean 'name'?"),
        ([""], "The prompt must not be empty"),
        (["a b", "--features", "word"], "Did you mean 'words'?"),
        (["a b", "--method", "shaply"], "Did you mean 'shapley'?"),
        (["a b", "--method", "ablation", "--option", "sampler=x"], "has no option 'sampler'"),
        (["a b", "--target-fn", "logprob"], "Did you mean 'log_prob'?"),
        (["a b", "--backend", "tensorflow"], "No backend is called 'tensorflow'"),
        (["a b", "--plot", "x.png", "--view", "heatmp"], "Did you mean 'heatmap'?"),
        (["a b", "--plot", "x.png", "--view-option", "colour=1"], "has no option 'colour'"),
        (["a b", "--plot", "x.html", "--view", "bar"], "does not fit x.html"),
        (["a b", "--features", "turns"], "--features turns is for a conversation (--chat), and this prompt is a text"),
        (["a b", "--run-log", "/nosuch/x"], "error: --run-log '/nosuch/x': there is no folder /nosuch."),
        (["a b", "--plot", "x.png", "--view", "html"], "does not fit x.png"),
        (["a b", "--plot", "x.png", "--view", "terminal"], "does not fit x.png"),
        (
            ["a b", "--contrast", " x"],
            "' x' has no effect: the target function 'log_prob' compares with nothing. Choose",
        ),
        (["a b", "--target-fn", "contrast_prob_diff"], "compares with another target; give it as --contrast."),
        (
            ["a b", "--target-fn", "contrast_prob_diff", "--target", " x", "--contrast", " x"],
            "The contrast ' x' is equal to the target",
        ),
    ],
)
def test_problems_that_one_line_explains(run: Run, no_model: None, words: list[str], message: str) -> None:
    ended = run("attribute", *words)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: ")
    assert message in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no prompt"),
        (["a", "--template", "{b}"], "PROMPT and --template are given"),
        (["a", "--prompt-file", "b"], "PROMPT and --prompt-file are given"),
        (["--template", "{a}"], "needs values for its slots"),
        (["--template", "{a}", "--value", "a"], "'a' is not of the form NAME=VALUE"),
        (["--template", "{a}", "--value", "=b"], "'=b' is not of the form NAME=VALUE"),
        (["--template", "{a}", "--value", "a=1", "--value", "a=2"], "'a' is given twice"),
        (["--template", "{a}", "--features", "words"], "'words' is for plain prompts"),
        (["--template", "{a}", "--keep-index", "0"], "[0] is for plain prompts"),
        ([*TEMPLATE, "--baseline", "name,job=Ann"], "is not 2 texts, one for each of name, job"),
        ([*TEMPLATE, "--baseline", 'name,job=["Ann"'], "is not valid JSON"),
        ([*TEMPLATE, "--baseline", "name,job=[1, 2]"], "is not 2 texts"),
        ([*TEMPLATE, "--baseline", "name,=x"], "has an empty name"),
        (["a", "--value", "b=c"], "there is no --template"),
        (["a", "--baseline", "b=c"], "--text-baseline"),
        (["a", "--draws", "2"], "there is no --template"),
        (["a", "--baseline-id", "3"], "add --features tokens"),
        (["a", "--features", "tokens", "--baseline-id", "3", "--text-baseline", "x"], "--text-baseline is given too"),
        (["a", "--target", "x", "--target-ids", "1"], "--target is given too"),
        (["a", "--target", ""], "the text is empty"),
        (["a", "--contrast", ""], "the text is empty"),
        (["--prompt-file", ""], "the name of the file is empty"),
        (["--chat", ""], "the name of the file is empty"),
        (["a", "--document", ""], "the name of the file is empty"),
        (["a", "--progress", "maybe"], "'maybe' is not one of auto, always, never"),
        (["a", "--progress", "always", "--no-progress"], "--progress always is given too"),
        (["a", "--target-ids", "1;2"], "is not a list of token ids"),
        (["a", "--target", "x", "--max-new-tokens", "3"], "the target is given"),
        (["a", "--generate", "max_new_tokens=2", "--max-new-tokens", "3"], "leave one of them out"),
        (["a", "--target", "x", "--stop", "."], "the target is given"),
        (["a", "--generate", "stop=x", "--stop", "."], "leave one of them out"),
        (["a", "--stop", "", "--stop", "."], "leave it or the others out"),
        (["a", "--option", "n=[1"], "is not valid JSON"),
        (["a", "--option", "n=1", "--option", "n=2"], "'n' is given twice"),
        (["a", "--option", "budget=3"], "has a flag of its own"),
        (["a", "--memory-budget", "5 apples"], "is not an amount of memory"),
        (["a", "--memory-budget", "0"], "is not enough memory"),
        (["a", "--budget", "0"], "--budget: 0 is too small; write a whole number of at least 1."),
        (["a", "--budget", "1e3"], "--budget: '1e3' is not a whole number; write it in digits, such as 100."),
        (["a", "--seed", "-1"], "--seed: -1 is too small"),
        (["a", "--keep-index", "x"], "--keep-index: 'x' is not a whole number"),
        (["a", "--until", "x"], "--until: 'x' is not a number"),
        (["a", "--until", "-1"], "--until: -1 is not a standard error"),
        (["a", "--save", "a.txt"], "should end in .json"),
        (["a", "--plot", "a.jpg"], "not one of .png, .svg, .pdf, .eps, .html"),
        (["a", "--view", "bar"], "add --plot FILE"),
        (["a", "--view-option", "sort=true"], "add --view NAME or --plot FILE"),
        (["a", "--view", "terminal", "--json"], "add --plot FILE for the view"),
        (["a", "--input-option", "x=1"], "there is no --input"),
        (["a", "--input", "template"], "the input 'template' also needs values"),
        (["a", "--input", "text", "--features", "words"], "write options of 'text' as --input-option NAME=VALUE"),
        (
            ["a", "--input", "text", "--input-option", "bye=words"],
            "no option 'bye'. Its options: by, baseline, keep",
        ),
        (["--template", "{a}", "--value", "a=b", "--input", "text"], "a template is an input of its own"),
        (["a", "--chat", "b.json"], "PROMPT and --chat are given"),
        (["--chat", "b.json", "--document", "c"], "--chat is given too; the question about documents is PROMPT"),
        ([*TEMPLATE, "--document", "c"], "--template is given too; the question about documents"),
        (["--document", "c"], "the question about the documents is missing"),
        (["a", "--layout", "{context} {question}"], "there is no --document"),
        (["--template", "{a}", "--value", "a=b", "--as-chat"], "--template is given; this is for a PROMPT"),
        (["a", "--input", "text", "--as-chat"], "--input is given; this is for a PROMPT"),
        (["a", "--as-chat", "--by", "tokens"], "write one of words, sentences, lines, paragraphs"),
        (["a", "--as-chat", "--value", "b=c"], "the features are those of --as-chat"),
        (["--chat", "b.json", "--value", "c=d"], "the features are those of --chat"),
        (["a", "--document", "c", "--baseline", "d=e"], "Use --text-baseline to replace absent features"),
        (["--chat", "b.json", "--baseline-id", "3"], "use --text-baseline with --chat"),
        (["--chat", "b.json", "--input", "text"], "a chat is an input of its own"),
        (["a", "--document", "c", "--input", "text"], "documents are an input of their own"),
        (["--prompt-file", "b.json", "--save", "./b.json"], "is an input of this command"),
        (["a", "--colour"], "--colour"),
        (["a", "b"], "b"),
    ],
)
def test_usage_errors(run: Run, no_model: None, words: list[str], message: str) -> None:
    ended = run("attribute", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_refusals_of_the_library_use_the_words_of_the_shell(attribute: Run) -> None:
    for words, message in (
        (["--keep-index", "99"], "--keep-index 99"),
        (["--method", "permutation", "-o", "antithetic=5"], "antithetic=5 must be true or false"),
        (["--method", "hierarchical", "-o", "depth=null"], "has no option 'depth'"),
    ):
        ended = attribute("a b c", "--target", " x", *words)
        assert (ended.code, ended.out) == (1, "")
        assert message in ended.err
    assert in_shell_words("'budget=3' is a text; by=5 is not, nor is budget=3 (None or seed=).") == (
        "'budget=3' is a text; --features 5 is not, nor is --budget 3 (null or --seed)."
    )
    assert in_shell_words(
        "keep=True: f((1,), seed=1), tensor([[nan, 1]], dtype=torch.float64), dtype=torch.float16"
    ) == ("--keep: f((1,), seed=1), tensor([[nan, 1]], dtype=torch.float64), dtype=torch.float16")


def test_unknown_command(run: Run) -> None:
    ended = run("atribute", "x")
    assert ended.code == 2
    assert "atribute" in ended.err
    ended = run("methods", "shapley")
    assert (ended.code, "apportion methods show shapley" in plain(ended.err)) == (2, True)


# --- outputs -------------------------------------------------------------------------------------------------------


def test_bad_places_are_refused_before_the_model_loads(
    run: Run, no_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    for place, message in [
        (tmp_path / "none" / "a.json", "there is no folder"),
        (tmp_path / "file" / "a.json", "there is no folder"),
        (tmp_path / "folder.json", "it is a folder"),
    ]:
        ended = run("attribute", "a b", "--save", place)
        assert (ended.code, ended.out) == (1, "")
        assert message in ended.err
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission" in run("attribute", "a b", "--plot", tmp_path / "a.png").err


def test_two_outputs_cannot_be_one_file(run: Run, no_model: None, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("")
    (tmp_path / "b.svg").symlink_to(tmp_path / "b.json")
    ended = run("attribute", "a b", "--save", tmp_path / "b.json", "--plot", tmp_path / "b.svg")
    assert ended.code == 2
    assert "already what --save writes" in ended.err


def test_a_failed_run_leaves_the_old_file(attribute: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    ended = attribute("a b c", "--target-ids", "99999", "--save", path)
    assert (ended.code, ended.out) == (1, "")
    assert "outside the vocabulary" in ended.err
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_link_is_followed(attribute: Run, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    attribute("a b", "--target", "x", "--save", tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert Attribution.load(tmp_path / "real.json").target_text == "x"


def test_a_picture_that_fails_costs_nothing_else(
    attribute: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs.Outputs, "check_view", lambda self: None)
    words = ["--save", tmp_path / "a.json", "--plot", tmp_path / "a.png", "--view", "html", "--json"]
    ended = attribute("a b", "--target", "x", *words)
    assert ended.code == 1
    assert "does not fit" in ended.err
    assert ended.json() == json.loads((tmp_path / "a.json").read_text())
    assert names(tmp_path) == ["a.json"]


def test_a_result_that_json_cannot_hold_is_still_shown(
    attribute: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attribution, "to_dict", lambda self: {"extras": {"x": object()}})
    ended = attribute("a b", "--target", "x", "--save", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert ended.code == 1
    assert ended.err.startswith("error: The result cannot be written as JSON")
    assert "Shapley value" in ended.out
    assert names(tmp_path) == ["a.png"]
    assert attribute("a b", "--target", "x", "--json").code == 1


def test_json_is_ascii_where_stdout_is(attribute: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="ascii"))
    assert attribute("ä b", "--target", "x", "--json").code == 0
    assert json.loads(stream.getvalue().decode("ascii"))["features"][0]["text"] == "ä"


# --- endings -------------------------------------------------------------------------------------------------------


def test_interrupt(attribute: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explainer_module.Explainer, "attribute", interrupt)
    ended = attribute("a b", "--target", "x", "--save", tmp_path / "a.json")
    assert ended == Ended(130, "", "interrupted; no result was written")
    assert names(tmp_path) == []


def test_interrupt_between_two_files(attribute: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attribution, "plot", interrupt)
    path = tmp_path / "a.json"
    ended = attribute("a b", "--target", "x", "--save", path, "--plot", tmp_path / "a.png")
    assert ended == Ended(130, "", f"interrupted; written before that: {path}")


WAITS = """
import sys, time
import apportion as ap

@ap.hookimpl
def apportion_before_run(request):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_real_interrupt_leaves_no_file(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    site.mkdir()
    out.mkdir()
    install(site, monkeypatch, "waits", WAITS)
    words = ["attribute", "a b c", "--model", tiny_model_dir, "--target", "x", "--save", out / "a.json"]
    process = subprocess.Popen(
        command(*words, path=site),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, interrupts are ignored, and children inherit that.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert (process.returncode, printed, complaints) == (130, "", "interrupted; no result was written\n")
    assert names(out) == []


@pytest.mark.parametrize("words", [["methods"], ["plugins", "--json"], ["attribute", "--help"]])
def test_a_closed_pipe_is_no_traceback(words: list[str]) -> None:
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


def test_bugs_keep_their_traceback(run: Run, no_model: None) -> None:
    with pytest.raises(ModelLoadedError):
        run("attribute", "a b")


# --- show ----------------------------------------------------------------------------------------------------------


def test_show(attribute: Run, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    saved = attribute("ab cd", "--target", "x", "--save", path, "--json")
    assert "Shapley value" in run("show", path).out
    assert run("show", path, "--json").json() == saved.json()
    assert run("show", path, "--plot", tmp_path / "a.png", "--view", "bar").code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_views_can_be_printed(attribute: Run, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    attribute("ab cd", "--target", "x", "--save", path)
    assert "<table" in run("show", path, "--view", "html").out
    shown = run("show", path, "--view", "terminal", "--view-option", "max_features=1").out
    assert "the 1 omitted have at most" in shown
    assert run("show", path, "--view", "heatmap").code == 2


def test_inputs_by_name(attribute: Run) -> None:
    words = ("Ab cd. Ef gh.", "--input", "text", "--input-option", "by=sentences", "--target", "x", "--json")
    assert [feature["name"] for feature in attribute(*words).json()["features"]] == ["Ab cd.", "Ef gh."]


def test_show_refuses(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for words in ([], ["--row", "e"]):
        ended = run("show", path, *words)
        assert (ended.code, "Cannot read" in ended.err) == (1, True)
    path.write_text("{}")
    ended = run("show", path)
    assert (ended.code, ended.out) == (1, "")
    assert "is not a saved attribution" in ended.err
    assert run("show").code == 2


# --- what is installed ---------------------------------------------------------------------------------------------


def test_methods_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = run("methods", "--json").json()
    assert found == run("methods", "list", "--json").json()
    by_name = {method.pop("name"): method for method in found}
    assert by_name["ablation"] == {
        "summary": by_name["ablation"]["summary"],
        "plugin": "apportion_plugins.methods",
        "family": "perturbation",
        "estimand": "leave-one-out",
        "requires": [],
        "cost": "F + 1 evaluations",
    }
    assert (by_name["reagent"]["requires"], by_name["interactions"]["family"]) == (["logits"], "interactions")
    assert all(method["cost"] for method in found)
    table = run("methods").out
    assert max(map(cell_len, table.splitlines())) <= 80, "folded in a pipe, too"
    shown = plain(table)
    for name, method in by_name.items():
        assert f"{name} {method['summary']}" in shown
        assert all(method[fact] in shown for fact in ("family", "estimand", "cost"))


def test_methods_list_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two or three lines for each, in 80 columns; a method of a plugin that fails does not spoil the list."""
    out = io.StringIO()
    terminal = Console(file=out, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(listing, "console", lambda **_: terminal)
    monkeypatch.setattr(kinds, "load_plugins", lambda: load_plugins([Listed()]))
    kinds.kind_app("methods").registered_commands[0].callback(as_json=False)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(out.getvalue().split())
    assert "leave-one-out; F + 1 evaluations" in shown and "ReAGent importance; needs logits; budget" in shown
    assert "looks gradient; looks inside; needs gradients" in shown, "a family that is not stated follows"
    assert "could not make its method 'broken': ZeroDivisionError" in shown


class LooksInside:
    """Needs gradients, and says neither family nor cost."""

    estimand, requires = "looks inside", frozenset({ap.Capability.GRADIENTS})

    def run(self, game: ap.Game, *, budget: int | None, rng: object) -> ap.Estimate:
        raise NotImplementedError


class Listed:
    """A plugin with a method that looks inside, and one that cannot be made."""

    @ap.hookimpl
    def apportion_register_methods(self, register: ap.Register) -> None:
        register("inside", LooksInside, summary="looks")
        register("broken", lambda: 1 / 0, summary="breaks")


def test_methods_show(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = run("methods", "show", "permutation", "--json").json()
    assert found["estimand"] == "Shapley value"
    assert found["requires"] == []
    antithetic, n_permutations = found["options"]
    assert (antithetic["name"], antithetic["type"], antithetic["default"]) == ("antithetic", "bool", True)
    assert antithetic["help"].startswith("follow each order by its reverse")
    assert (n_permutations["default"], n_permutations["required"]) == (None, False)
    out = run("methods", "show", "permutation").out
    assert max(map(cell_len, out.splitlines())) <= 80
    text = plain(out)
    assert "n_permutations int | None None" in text
    assert "Castro" in text
    shown = run("methods", "show", "layer_integrated_gradients").out
    assert "at the positions of each \nfeature (Captum's" in shown, "a first sentence of two lines is one paragraph"
    assert "options none" in plain(run("methods", "show", "shapley").out)
    assert "Did you mean 'shapley'?" in run("methods", "show", "shaply").err


def test_segmenters_and_fills(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert {one["name"] for one in run("segmenters", "--json").json()} >= {"grid", "slic", "patches"}
    assert {one["name"] for one in run("fills", "list", "--json").json()} >= {"mean", "blur", "inpaint"}
    number, compactness = run("segmenters", "show", "slic", "--json").json()["options"]
    assert (number["name"], number["type"], number["default"]) == ("n", "int", 40)
    assert compactness["help"].startswith("weight of nearness")
    assert "radius float | None None standard deviation in pixels" in plain(run("fills", "show", "blur").out)
    assert "options none" in plain(run("fills", "show", "mean").out)
    assert "Did you mean 'grid'?" in run("segmenters", "show", "grd").err


def test_backends(run: Run) -> None:
    (torch,) = (b for b in run("backends", "list", "--json").json() if b["name"] == "torch")
    assert torch["available"] is True
    assert "cpu" in torch["devices"]
    assert run("backends", "show", "torch", "--json").json() == torch
    assert "capabilities" in run("backends", "show", "torch").out
    assert run("backends", "check").code == 0
    assert run("backends", "check", "torch", "--json").json()["ok"] is True
    assert run("backends", "show", "none").code == 1


PROBLEMS = """
import apportion as ap
from apportion.protocols.backend import BackendInfo, Unavailable

class Absent:
    info = BackendInfo("absent", ("cuda",), frozenset(), priority=9)
    def availability(self): return Unavailable("no such library", "pip install it")
    def load(self, model, *, device, dtype, memory_budget): ...

class NoRun:
    estimand, requires = "nothing", frozenset()

def explode():
    raise RuntimeError("boom")

@ap.hookimpl
def apportion_register_backends(register):
    register("absent", Absent, summary="never works")
    register("exploding", explode, summary="cannot be made")

@ap.hookimpl
def apportion_register_methods(register):
    register("norun", NoRun, summary="no method")
    register("gone", "nowhere.to:be", summary="cannot be imported")

@ap.hookimpl
def apportion_register_inputs(register):
    register("gone", "nowhere.to:be", summary="cannot be imported")
"""


def test_unavailable_backends_say_why(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "problems", PROBLEMS)
    found = {backend["name"]: backend for backend in run("backends", "--json").json()}
    assert found["absent"]["available"] is False
    assert (found["absent"]["reason"], found["absent"]["hint"]) == ("no such library", "pip install it")
    assert "RuntimeError: boom" in found["exploding"]["reason"]
    assert "no such library. pip install it" in plain(run("backends").out)
    assert run("backends", "check").code == 0
    assert run("backends", "check", "absent").code == 1


def test_plugins_list_shows_failures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "broken", "import nothing_of_this_name\n")
    monkeypatch.setenv("APPORTION_DISABLE_PLUGINS", "apportion_plugins.progress")
    found = {plugin["name"]: plugin for plugin in run("plugins", "--json").json()}
    assert found["broken"]["state"] == "failed"
    assert found["broken"]["distribution"] == "broken 1.2"
    assert "nothing_of_this_name" in found["broken"]["error"]
    assert found["apportion_plugins.progress"]["state"] == "disabled"
    methods = found["apportion_plugins.methods"]
    assert methods["state"] == "loaded"
    assert "apportion_register_methods" in methods["hooks"]
    assert "ablation" in [entry["name"] for entry in methods["registers"]]
    listed = run("plugins")
    assert listed.code == 0
    assert re.search(r"broken +failed +broken 1.2 .*nothing_of_this_name", listed.out)


def test_plugins_list_says_when_nothing_is_loaded_by_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_PLUGIN_AUTOLOAD", "0")
    assert "Installed plugins are not loaded: APPORTION_PLUGIN_AUTOLOAD=0." in run("plugins").out


def test_plugins_show(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "broken", "import nothing_of_this_name\n")
    assert "nothing_of_this_name" in run("plugins", "show", "broken").out
    assert "leave-one-out" in run("plugins", "show", "apportion_plugins.methods").out
    assert run("plugins", "show", "apportion_plugins.inputs", "--json").json()["state"] == "loaded"
    assert "Did you mean 'broken'?" in run("plugins", "show", "brokn").err


def test_plugins_check(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("plugins", "check").code == 0
    install(tmp_path, monkeypatch, "problems", PROBLEMS)
    ended = run("plugins", "check", "--json")
    assert ended.code == 1
    faults = {plugin["name"]: plugin["faults"] for plugin in ended.json()["plugins"]}
    assert faults.pop("problems") == [
        "The plugin 'problems' could not load its input 'gone': ModuleNotFoundError: No module named 'nowhere'",
        "The method 'norun' is a NoRun without 'run'.",
        "The plugin 'problems' could not load its method 'gone': ModuleNotFoundError: No module named 'nowhere'",
        "The backend 'absent' has no docstring on Absent; describe it in a sentence.",
        "The plugin 'problems' could not make its backend 'exploding': RuntimeError: boom",
    ]
    assert not any(faults.values())
    assert run("plugins", "check", "apportion_plugins.methods").code == 0
    shown = run("plugins", "check", "problems")
    assert shown.code == 1
    assert "failed problems: The method 'norun'" in plain(shown.out)


GREEDY = """
import apportion as ap

@ap.hookimpl
def apportion_adapt_input(prompt, context):
    print("noise")
    return 3
"""


def test_plugins_check_of_an_adapter_that_takes_everything(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "greedy", GREEDY)
    ended = run("plugins", "check", "greedy")
    assert ended.code == 1
    assert "claims any object" in plain(ended.out)


def test_plugins_check_of_failed_and_disabled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "broken", "import nothing_of_this_name\n")
    assert run("plugins", "check").code == 1
    monkeypatch.setenv("APPORTION_DISABLE_PLUGINS", "broken")
    assert run("plugins", "check").code == 0
    ended = run("plugins", "check", "broken")
    assert ended.code == 1
    assert "disabled by APPORTION_DISABLE_PLUGINS" in ended.out


# --- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 10**6),
        ("512MiB", 512 * 2**20),
        ("2GB", 2 * 10**9),
        ("2 gb", 2 * 10**9),
        ("0.5GiB", 2**29),
        ("64b", 64),
        ("1TiB", 2**40),
    ],
)
def test_memory_size(text: str, size: int) -> None:
    assert memory_size("--memory-budget", text) == size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("leverage", "leverage"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_option_values(text: str, value: object) -> None:
    assert json_or_text("--option", text) == value


def documented(*, depth: int, width: int) -> None:
    """Something.

    More of it.

    Args:
        depth: how deep, in metres,
            measured at noon.
        width (int): how wide.

    Returns:
        Nothing.
    """


def test_docstrings() -> None:
    assert description(documented) == "Something.\n\nMore of it."
    assert parameter_notes(documented) == {"depth": "how deep, in metres, measured at noon.", "width": "how wide."}
    assert parameter_notes(test_docstrings) == {}


@dataclass(frozen=True)
class Dough:
    """A group of options."""

    flour: Annotated[str, typer.Argument()]
    grams: Annotated[int, in_panel("Weights")("--grams", "-g", min=1, help="Of flour.")] = 500
    seed: Annotated[tuple[str, ...], typer.Option()] = ("sesame",)
    salted: Annotated[bool, typer.Option("--salted")] = False


@dataclass(frozen=True)
class Oven:
    """Another one."""

    degrees: Annotated[float | None, typer.Option()] = None
    shelves: Annotated[tuple[int, ...], typer.Option()] = ()


def baking(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    add_command(app, command, panel="Baking")
    return app


def test_a_function_of_groups_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    baked: list[tuple[Dough, Oven]] = []

    def bake(dough: Dough, oven: Annotated[Oven, Without("shelves")]) -> None:
        """Bake a loaf."""
        baked.append((dough, oven))

    app = baking(bake)
    app(["rye"], standalone_mode=False)
    app(["rye", "-g", "3", "--seed", "flax", "--seed", "oat", "--salted", "--degrees", "1e2"], standalone_mode=False)
    assert baked == [(Dough("rye"), Oven()), (Dough("rye", 3, ("flax", "oat"), salted=True), Oven(100.0))]
    for words, message in (["rye", "--shelves", "2"], "No such option"), ([], "Missing argument"):
        with pytest.raises(SystemExit, match="2"):
            app(words)
        assert message in plain(capsys.readouterr().err)
    with pytest.raises(SystemExit, match="0"):
        app(["--help"])
    text = plain(capsys.readouterr().out)
    assert "Bake a loaf." in text
    assert " Weights " in text
    assert "[default: 500]" in text


def test_a_usage_error_inside_the_function_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def bake(oven: Oven) -> None:
        usage_error("--degrees", "the oven is cold.")

    with pytest.raises(SystemExit, match="2"):
        baking(bake)(["--degrees", "3"], prog_name="bake")
    assert plain(capsys.readouterr().err).startswith("Usage: bake [OPTIONS]")


def test_only_options_that_exist_can_be_left_out() -> None:
    def bake(oven: Annotated[Oven, Without("degres")]) -> None: ...

    with pytest.raises(TypeError, match=r"Oven has no options \['degres'\]"):
        baking(bake)


# --- evaluate and dry runs -------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_cost(run: Run, tiny_model_dir: Path) -> None:
    words = ["attribute", "a b c", "--model", tiny_model_dir, "--target", " x", "--dry-run"]
    told = run(*words, "--json").json()
    assert (told["evaluations"], told["features"], told["method"]) == (8, 3, "shapley")
    shown = plain(run(*words).out)
    assert "8 distinct prompts in" in shown
    assert "tokens/s" in shown


def test_evaluate(run: Run, tiny_model_dir: Path, tmp_path: Path) -> None:
    words = ["evaluate", "a b c d", "--model", tiny_model_dir, "--target", " x", "--no-progress"]
    words += ["--metric", "deletion", "--metric", "lds", "--metric-option", "lds.masks=8"]
    found = run(*words, "--json").json()
    assert list(found["measurements"]) == ["deletion", "lds"]
    assert found["options"]["lds"]["masks"] == 8
    both = run(*words, "--compare", "ablation", "--plot", tmp_path / "curves.png", "--json").json()
    assert [one["method"] for one in both] == ["shapley", "ablation"]
    assert len(found["random"]["deletion"]) == 4
    assert run(*words, "--json", "--random-orders", "0").json()["random"] == {}
    assert both[0]["measurements"] == found["measurements"]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    look = ["--plot", tmp_path / "small.png", "--view-option", "size=[4, 6]", "--view-option", "dpi=50"]
    assert run(*words, *look).code == 0
    assert (tmp_path / "small.png").read_bytes()[16:24] == struct.pack(">II", 200, 300)
    generated = run("evaluate", "a b", "--model", tiny_model_dir, "--compare", "ablation", "--metric", "deletion")
    assert generated.code == 0
    assert "deletion" in plain(generated.out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "delation"], "Did you mean 'deletion'"),
        (["--compare", "ablatio"], "Did you mean 'ablation'"),
        (["--metric-option", "masks=3"], "'masks' does not name an option; write NAME.OPTION=VALUE"),
        (["--plot", "curves.png", "--metric", "lds"], "lds has no curves to draw. Metrics that have: deletion"),
        (["--plot", "curves.txt"], "the suffix of curves.txt is not one of"),
        (["--plot", "/nowhere/curves.png"], "there is no folder /nowhere"),
        (["--plot", "curves.png", "--view-option", "sise=[3, 2]"], "no option 'sise'"),
        (["--view-option", "title=null"], "is for the curves; add --plot FILE"),
        (["--save", "r.json"], "No such option"),
        (["--random-orders", "3"], "3 is odd"),
    ],
)
def test_evaluate_refuses(run: Run, words: list[str], message: str) -> None:
    ended = run("evaluate", "a b", "--model", "m", *words)
    assert ended.code in (1, 2)
    assert message in plain(ended.err)


def test_evaluate_of_a_missing_result(run: Run, no_model: None) -> None:
    ended = run("evaluate", "--result", "nosuch", "--row", "g")
    assert (ended.code, "Cannot read nosuch" in ended.err) == (1, True)


def test_idle_threads_do_not_spin_for_long_unless_the_user_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    assert run("--version").code == 0
    assert os.environ["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert run("--version").code == 0
    assert "GOMP_SPINCOUNT" not in os.environ
