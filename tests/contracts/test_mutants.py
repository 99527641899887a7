"""The contracts have teeth: every seeded defect fails at least one check, and what is right fails none."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from forks import Forks

HERE = Path(__file__).parent
TELLING = "not test_known_games or n-10 or TestControl"
"""Every check runs for every mutant; of 33 known games the three largest are wrong wherever a smaller one is."""
CONDUCT = "left_as or leaves_the or counted or budget or mode_of or among or seed"
"""Checks of what a white-box method does to the model and to others; the rest are of its values."""
HALVES = f"TestControl or (TestConduct and ({CONDUCT})) or (TestScores and not ({CONDUCT}))"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("file", "telling", "least", "controls"), [("mutants", TELLING, 90, 13), ("white_box_mutants", HALVES, 20, 1)]
)
def test_every_mutant_is_caught(
    file: str, telling: str, least: int, controls: int, tmp_path: Path, forks: Forks
) -> None:
    report = tmp_path / "report.xml"
    options = ["-p", "first_failure", "-k", telling, "--tb=no", f"--junitxml={report}"]
    done = forks.pytest(HERE / f"{file}.py", *options, cwd=HERE.parent.parent)
    assert done.returncode == 1, done.stdout[-2000:]
    caught: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        mutant = case.attrib["classname"].split(".")[-1]
        failures = caught.setdefault(mutant, [])
        assert case.find("error") is None, f"{mutant} cannot be run: {ElementTree.tostring(case).decode()[:500]}"
        if case.find("failure") is not None:
            failures.append(case.attrib["name"])
    right = {name: failures for name, failures in caught.items() if name.startswith("TestControl")}
    assert len(right) == controls
    assert not any(right.values()), f"a check failed where nothing is wrong: {right}"
    survivors = [name for name, failures in caught.items() if not failures and name not in right]
    assert not survivors, f"no check failed for {survivors}"
    assert len(caught) - len(right) >= least
