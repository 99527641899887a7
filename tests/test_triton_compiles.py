"""Kernels compile for real GPUs and fit onto them: the interpreter knows neither shared memory nor registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes that one program may have on an A100 and an H100."""


@pytest.mark.slow
def test_every_kernel_fits_onto_a_gpu(tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compiled_kernels.py"))],
        env=known | {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert {row["capability"] for row in found} == set(SHARED)
    for row in found:
        assert row["shared"] <= SHARED[row["capability"]], row
        assert row["stack"] + row["local"] == 0, f"does not fit into registers: {row}"
