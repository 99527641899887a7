"""Checks of backends that export models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.exports import ExportBackend
from apportion.protocols.model import ModelSpec
from apportion.testing.rows import rows_of, scored

__all__ = ["check_export"]

Expected = Callable[[tuple[int, ...], tuple[int, ...]], Float[Tensor, " T"]]


def check_export(
    backend: ExportBackend, spec: ModelSpec, folder: Path, expected: Expected, target: tuple[int, ...], tolerance: float
) -> None:
    """An exported model is opened from its folder, gives the numbers of the model, and is not written over.

    Args:
        backend: the backend.
        spec: a model that it can export.
        folder: folder that does not exist yet.
        expected: reference log-probabilities of a target after a prompt.
        target: the target.
        tolerance: largest difference in nats.
    """
    steps: list[str] = []
    done = backend.export(spec, folder, say=steps.append)
    assert done.folder == folder and folder.is_dir(), f"It exported to {done.folder}, not to {folder}."
    assert steps, "It did not say what it was doing."
    files = sorted(folder.rglob("*"))
    assert done.bytes == sum(path.stat().st_size for path in files if path.is_file()), (
        "The size is not that of its files."
    )
    session = backend.load(ModelSpec(str(folder)), device=None, dtype=None, memory_budget=None)
    try:
        rows = rows_of(0)
        for row, ours in zip(rows, scored(session, rows, 0, target), strict=True):
            worst = float((ours.double() - expected(row, target)).abs().max())
            assert worst <= tolerance, f"The export scores a prompt of {len(row)} tokens {worst:.3g} nats off."
    finally:
        session.close()
    with pytest.raises(InputError):
        backend.export(spec, folder, say=steps.append)
    assert sorted(folder.rglob("*")) == files, "A refused export changed the folder."
