"""The tutorial for plugin authors, followed to the letter in an environment of its own: files, commands, code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forks import Forks
from sandbox import Sandbox

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r'^```(sh|python)(?: title="([^"]+)")?\n(.*?)^```', flags=re.S | re.M)


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_write_your_first_method(tmp_path: Path, forks: Forks) -> None:
    sandbox = Sandbox.create(tmp_path / "venv", forks)
    page = (ROOT / "docs/tutorials/first-method.md").read_text(encoding="utf-8")
    where, output = tmp_path, ""
    for language, title, text in BLOCK.findall(page):
        if title:
            assert (where / title).exists(), f"{title} is to replace a file that `apportion new` wrote"
            (where / title).write_text(text, encoding="utf-8")
            continue
        if language == "python":
            (tmp_path / "snippet.py").write_text(text, encoding="utf-8")
            text = f"PYTHONPATH=. python {tmp_path / 'snippet.py'}"
        done = sandbox.run(f"{text}\npwd > {tmp_path / 'where'}", where)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        where = Path((tmp_path / "where").read_text().strip())
        output += done.stdout
    assert re.search(r"\d+ passed", output)
    assert "ok      companions" in output
    assert "Banzhaf values from random halves of the features" in output
    assert "Banzhaf value" in output
