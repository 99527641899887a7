"""The example distributions: built as wheels, installed into a fresh environment, used, and gone without a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forks import Forks
from sandbox import Sandbox

EXAMPLES = Path(__file__).parent.parent / "examples"
Shell = Callable[[str], str]


@contextmanager
def installed(name: str, folder: Path, forks: Forks) -> Iterator[Shell]:
    """A shell where an example is installed; afterwards, that it has left without a trace is checked."""
    sandbox = Sandbox.create(folder / "venv", forks)

    def run(script: str) -> str:
        done = sandbox.run(script, folder)
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def files() -> set[Path]:
        return {path for path in sandbox.folder.rglob("*") if "__pycache__" not in path.parts}

    listed, there = run("apportion methods; apportion plugins"), files()
    wheel = f"{name.replace('-', '_')}-0.1.0-py3-none-any.whl"
    run(f"pip wheel --no-deps --wheel-dir wheels {EXAMPLES / name}; pip install --no-deps wheels/{wheel}")
    yield run
    run(f"pip uninstall --yes {name}")
    assert run("apportion methods; apportion plugins") == listed
    assert files() == there


USE_HELLO = """
apportion methods
apportion plugins check hello
apportion attribute --model "$MODEL" --input lines --prompt-file prompt.txt --target " x" \
  --method hello --budget 40 --json > result.json
apportion show result.json --view greeting --view-option width=8
python - <<'PYTHON'
import os
import apportion as ap
from apportion_hello import Lines
with ap.Explainer(os.environ["MODEL"]) as explainer:
    result = explainer.attribute(Lines("one\\ntwo"), " x", method="hello", sampler="permutation", budget=40)
print("in Python:", result.estimand, result.provenance.options)
PYTHON
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_hello_wheel(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    monkeypatch.setenv("MODEL", str(tiny_model_dir))
    (tmp_path / "prompt.txt").write_text("one\ntwo\nthree\n")
    with installed("apportion-hello", tmp_path, forks) as run:
        out = run(USE_HELLO)
    assert "Banzhaf values from coalitions and their complements" in " ".join(out.split())
    assert "ok      hello" in out
    assert "method hello: run on a game" in out
    assert "in Python: Banzhaf value {'sampler': 'permutation'}" in out
    assert "█" * 8 in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert [feature["text"] for feature in result["features"]] == ["one\n", "two\n", "three"]
    assert result["std_error"] is not None


USE_ATTNLRP = """
apportion methods
apportion plugins check attnlrp
apportion attribute "one two three" --model "$MODEL" --target " xyz" --target-fn logit --attribute-generated \
  --method attnlrp --option softmax=constant --json > result.json
apportion show result.json
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_attnlrp_wheel(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    monkeypatch.setenv("MODEL", str(tiny_model_dir))
    with installed("apportion-attnlrp", tmp_path, forks) as run:
        out = run(USE_ATTNLRP)
    assert "layer-wise relevance propagation (Achtibat et al., 2024)" in " ".join(out.split())
    assert "ok      attnlrp" in out
    assert "method attnlrp: run on a tiny model, 1 evaluation" in out
    assert "AttnLRP relevance" in out
    result = json.loads((tmp_path / "result.json").read_text())
    arrived = sum(result["values"]) + result["extras"]["relevance_of_other_tokens"]
    assert arrived == pytest.approx(result["extras"]["explained"], rel=1e-5)
