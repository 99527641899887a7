"""The suite beside peers, with peers that are made up: what is counted, refused, written. Nothing asserts a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion.benchmarking import measuring
from apportion.benchmarking.watcher import Watcher
from apportion.benchmarking.works import Work
from apportion.testing import tiny

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The suite is run from the root, as ``python -m benchmarks.speed``."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(measuring, "gemm_rate", lambda *_, **__: 1e9)
    yield


def compared(**peers: object):
    from benchmarks.speed.cases import Case
    from benchmarks.speed.comparing import Effort, compare

    watcher = Watcher()
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[watcher], progress=False)
    case = Case(Work("words", "two words", lambda: "ab cd", " xy", {"method": "ablation"}), peers, aim={"good": 3})
    return compare(case, explainer, watcher, Effort(repeats=2, peer_repeats=2, memory=False, short=0))


def peer(package: str = "torch", tolerance: float | None = 1e-3, error: float = 0.0, **options: object):
    """One that gives our values, and an error more."""
    from benchmarks.speed.peer import Peer

    def prepare(session: Any):
        explainer = ap.Explainer((session.model, session.tokenizer), progress=False, share_prefixes=False)

        def run() -> np.ndarray:
            if error == np.inf:
                raise RuntimeError("no such thing")
            return explainer.attribute("ab cd", " xy", method="ablation").values + error

        return run

    return Peer(package, prepare, tolerance, **options)


def test_peers_are_checked_before_they_are_timed() -> None:
    found = compared(
        good=peer(),
        off=peer(error=0.1),
        known=peer(tolerance=None, error=0.1, wrong=True, note="its default"),
        other=peer(tolerance=None, error=0.1),
        absent=peer("no-such-package-at-all"),
        broken=peer(error=np.inf),
        long=peer(long=True),
    )
    ours, good, off, known, other, absent, broken = found.contenders
    assert ours.who == "apportion"
    assert len(ours.seconds) == len(good.seconds) == 2
    assert (good.agrees, good.difference) == (True, 0.0)
    assert (off.agrees, off.seconds) == (False, ())
    assert "not timed: values differ by 0.1" in off.note
    assert known.agrees
    assert known.seconds
    assert known.difference == pytest.approx(0.1)
    assert other.difference is None
    assert (absent.note, absent.seconds) == ("not installed", ())
    assert broken.note == "failed: RuntimeError: no such thing"
    # Two words, ablated: three prompts, by the peer padded to the longest; the last target token is not read.
    assert (good.read.rows, ours.read.rows) == (3, 3)
    assert good.read.tokens == 3 * 7
    assert ours.read.tokens == found.ours.forwarded_tokens == found.ours.least_tokens
    # "ab cd x" is read as a whole, of "ab x" what is new, and "cd x", which begins like none of them.
    assert found.ours.least_tokens == 7 + 1 + 4


def test_the_page_and_the_readme(tmp_path: Path) -> None:
    from benchmarks.speed import plots, report
    from benchmarks.speed.growth import Curve, slope

    case = compared(good=peer(), known=peer(tolerance=None, error=0.1, wrong=True), absent=peer("no-such-package"))
    curve = Curve("words", "two", (2, 4), (case.ours, case.ours))
    text = report.page(report.Findings([case], [curve], {"python -c pass": 0.01}))
    for part in ("two words", "not installed", "| good |", "## Growth", "## Start", "GPU: not measured"):
        assert part in text
    assert slope(curve) == (0.0,)
    table = report.readme_table([case])
    assert "known (wrong values)" in table
    assert "absent" not in table
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.refresh_readme(readme, [case])
    assert readme.read_text(encoding="utf-8") == f"before\n{report.BEGIN}\n\n{table}\n\n{report.END}\nafter\n"
    plots.draw_speed([case], tmp_path / "speed.png")
    plots.draw_growth([curve], tmp_path / "growth.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000
    assert (tmp_path / "growth.png").stat().st_size > 5000


def test_the_readme_has_the_marks() -> None:
    from benchmarks.speed import report

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_a_peak_is_what_was_held_for_a_moment() -> None:
    from benchmarks.speed.memory import peak_of

    assert peak_of(lambda: np.ones(64 * 2**20, dtype=np.uint8)).beyond >= 56 * 2**20


def test_every_case_names_what_it_does() -> None:
    from benchmarks.speed.cases import CASES, SENTENCES

    assert len(SENTENCES) == 60
    assert {"ablation", "occlusion", "shapley", "kernel_shap", "document", "few_shot"} <= set(CASES)
    assert len({case.work.summary for case in CASES.values()}) == len(CASES)
    for case in CASES.values():
        assert set(case.aim) <= set(case.peers)
