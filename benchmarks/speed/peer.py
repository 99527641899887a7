"""What a peer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.session import TorchSession

__all__ = ["Peer", "Run"]

Run = Callable[[], np.ndarray]
"""Does the work once and gives its values."""


@dataclass(frozen=True)
class Peer:
    """Another package's way to do the work of a case.

    Attributes:
        package: its distribution.
        prepare: sets everything up for a model, outside of the time that is taken.
        tolerance: values must agree with ours within this; ``None`` where they are not the same by definition.
        note: what a reader should know.
        wrong: it is known to give wrong values, and is timed all the same because it is the default.
        long: takes so long that it runs with ``--long`` only.
    """

    package: str
    prepare: Callable[[OpenModel | TorchSession], Run]
    tolerance: float | None = None
    note: str = ""
    wrong: bool = False
    long: bool = False

    @property
    def version(self) -> str | None:
        """Of the package; ``None`` if it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None
