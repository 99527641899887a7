"""The definition of a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.session import TorchSession

__all__ = ["Peer", "Run"]

Run = Callable[[], np.ndarray]
"""Does the work once and returns its values."""


@dataclass(frozen=True)
class Peer:
    """Another package's way to do the work of a case.

    Attributes:
        package: name of its distribution.
        prepare: sets everything up for a model; not timed.
        tolerance: tolerance for differences from our values; ``None`` if they need not agree.
        note: note for readers.
        wrong: its values are known to be wrong; it is timed nevertheless because it is the default.
        long: runs only with ``--long``, because it takes very long.
    """

    package: str
    prepare: Callable[[OpenModel | TorchSession], Run]
    tolerance: float | None = None
    note: str = ""
    wrong: bool = False
    long: bool = False

    @property
    def version(self) -> str | None:
        """Version of the package; ``None`` if it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None
