"""The tutorials that rerun a study: their code runs, and prints what the pages say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rerun", ROOT / "docs" / "rerun.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RERUN = script()


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RERUN.PAGES)
def test_the_page_says_what_its_code_prints(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for said, prints in RERUN.printed(page, text):
        assert RERUN.same(said, prints), f"{page} says\n{said}\nbut its code prints\n{prints}"
    for name in RERUN.IMAGE.findall(text):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize("page", RERUN.PAGES)
def test_numbers_in_the_text_are_numbers_that_the_code_prints(page: str) -> None:
    """Signed decimals in running text stand in an output of the page, or are rounded from one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n(.*?)^```", text, flags=re.S | re.M)
    shown = {float(number) for block in blocks for number in re.findall(r"-?\d+\.\d+", block)}
    prose = re.sub(r"^```\w+\n.*?^```", "", text, flags=re.S | re.M)
    for number in re.findall(r"[+−]\d+\.\d+", prose):
        places = len(number.partition(".")[2])
        value = float(number.replace("−", "-"))
        assert any(abs(value - one) < 0.51 * 10**-places for one in shown), f"{page}: {number}"


def test_what_counts_as_the_same() -> None:
    assert RERUN.same("a  -0.21\n", "a -0.22\n")
    assert not RERUN.same("a -0.21\n", "a -0.23\n")
    assert not RERUN.same("a 0.21\n", "b 0.21\n")
    assert not RERUN.same("16 prompts\n", "17 prompts\n")
    assert not RERUN.same("", "0.5\n")
    assert not RERUN.same("1 2\n", "1\n")
