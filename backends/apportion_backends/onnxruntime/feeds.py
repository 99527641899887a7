"""Inputs of an exported graph from the layout of a packed batch."""

from __future__ import annotations

import numpy as np

from apportion_backends.packing import Pack

__all__ = ["NOTHING", "feeds_of"]

NOTHING = 1
"""Places before the first token: the graph takes place 0 for none, so that no input is empty."""


def feeds_of(pack: Pack, kept: int) -> dict[str, np.ndarray]:
    """The indices that the graph reads, but for the nodes that are scored.

    Args:
        pack: layout of a batch, as a single group with a mask.
        kept: places that the graph keeps: ``NOTHING``, and kept tokens. The batch may read fewer of them.
    """
    (group,) = pack.groups
    assert group.seen is not None

    def places(indices: np.ndarray) -> np.ndarray:
        # The layout counts the kept tokens that are read; nodes come after all that are there.
        moved: np.ndarray = np.where(indices < pack.reused, indices + NOTHING, indices - pack.reused + kept)
        return moved

    return {
        "ids": pack.ids,
        "positions": pack.positions,
        "paths": places(group.paths),
        "queries": group.queries,
        "seen": group.seen,
        "where": group.where,
        "trunk": places(group.trunk) if len(group.trunk) else np.zeros(1, dtype=np.int64),
        "last": np.concatenate([np.arange(NOTHING), places(pack.last)]),
    }
