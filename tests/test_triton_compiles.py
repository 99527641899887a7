"""Kernels compile for real GPUs and fit: the interpreter checks neither shared memory nor registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SHARED = 227 * 1024
"""Bytes of shared memory per program on an H100."""
SPILLED = 32
"""Bytes of registers that may spill: a few, outside of loops."""


@pytest.mark.slow
def test_every_kernel_fits_onto_a_gpu(tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compiled_kernels.py")), "bf16", "90"],
        env=known | {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) > 12
    for row in found:
        assert row["shared"] <= SHARED, row
        assert row["stack"] + row["local"] <= SPILLED, f"does not fit into registers: {row}"
