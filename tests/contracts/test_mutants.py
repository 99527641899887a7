"""The contracts have teeth: every seeded defect fails at least one check, and what is right fails none."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from forks import Forks

HERE = Path(__file__).parent
TELLING = "not test_known_games or n-10 or TestControl"
"""Every check runs for every mutant; of 33 known games the three largest are wrong wherever a smaller one is."""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_mutant_is_caught(tmp_path: Path, forks: Forks) -> None:
    report = tmp_path / "report.xml"
    options = ["-k", TELLING, "--tb=no", f"--junitxml={report}"]
    done = forks.pytest(HERE / "mutants.py", *options, cwd=HERE.parent.parent)
    assert done.returncode == 1, done.stdout[-2000:]
    caught: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        mutant = case.attrib["classname"].split(".")[-1]
        failures = caught.setdefault(mutant, [])
        assert case.find("error") is None, f"{mutant} cannot be run: {ElementTree.tostring(case).decode()[:500]}"
        if case.find("failure") is not None:
            failures.append(case.attrib["name"])
    controls = {name: failures for name, failures in caught.items() if name.startswith("TestControl")}
    assert len(controls) == 8
    assert not any(controls.values()), f"a check failed where nothing is wrong: {controls}"
    survivors = [name for name, failures in caught.items() if not failures and name not in controls]
    assert not survivors, f"no check failed for {survivors}"
    assert len(caught) - len(controls) >= 60
