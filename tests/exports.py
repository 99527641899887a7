"""Exports of tiny models, each made once for all workers of a test run."""

from __future__ import annotations

from pathlib import Path

import torch
from filelock import FileLock

import apportion as ap
from apportion.testing import tiny


class Exports:
    """Makes exports when they are first needed.

    Args:
        root: folder that all workers share.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, family: str, precision: str = "fp32") -> Path:
        folder = self._root / f"{family}-{precision}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                ap.export((tiny.model(family, torch.float32), tiny.tokenizer()), folder, precision=precision)
        return folder
