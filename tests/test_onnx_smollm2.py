"""The export of the real model, which takes more than a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion.benchmarking.works import work
from apportion_backends.onnxruntime.manifest import read_manifest

pytestmark = [pytest.mark.demo, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exports") / "smollm2"
    ap.export("smollm2", made)
    return made


@pytest.mark.parametrize("case", ["ablation", "shapley", "kernel_shap", "few_shot"])
def test_values_are_those_of_pytorch(case: str, folder: Path, smollm2: ap.Explainer) -> None:
    chosen = work(case)
    options: dict[str, Any] = {**chosen.arguments, **({"budget": 64} if "budget" in chosen.arguments else {})}
    expected = smollm2.attribute(chosen.prompt(), chosen.target, **options)
    with ap.Explainer(str(folder), progress=False) as explainer:
        found = explainer.attribute(chosen.prompt(), chosen.target, **options)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
    assert found.provenance.forwarded_tokens == expected.provenance.forwarded_tokens


def test_the_manifest_says_how_far_it_is_from_pytorch(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert 0 < manifest.largest_difference < 1e-4 and manifest.compared_rows == 8
    assert manifest.context_length == 8192 and manifest.vocabulary == 49152
