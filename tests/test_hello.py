"""The example distribution: built as a wheel, installed into a fresh environment, used, and gone without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forks import Forks
from sandbox import Sandbox

EXAMPLE = Path(__file__).parent.parent / "examples" / "apportion-hello"

USE = """
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
    sandbox = Sandbox.create(tmp_path / "venv", forks)
    monkeypatch.setenv("MODEL", str(tiny_model_dir))
    (tmp_path / "prompt.txt").write_text("one\ntwo\nthree\n")

    def run(script: str) -> str:
        done = sandbox.run(script, tmp_path)
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    before = run("apportion methods; apportion plugins")
    files = {path for path in sandbox.folder.rglob("*") if "__pycache__" not in path.parts}
    run(f"pip wheel --no-deps --wheel-dir wheels {EXAMPLE}; pip install wheels/apportion_hello-0.1.0-py3-none-any.whl")
    out = run(USE)
    assert "Banzhaf values from coalitions and their complements" in out
    assert "ok      hello" in out
    assert "method hello: run on a game" in out
    assert "in Python: Banzhaf value {'sampler': 'permutation'}" in out
    assert "█" * 8 in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert [feature["text"] for feature in result["features"]] == ["one\n", "two\n", "three"]
    assert result["std_error"] is not None
    run("pip uninstall --yes apportion-hello")
    assert run("apportion methods; apportion plugins") == before
    assert {path for path in sandbox.folder.rglob("*") if "__pycache__" not in path.parts} == files
