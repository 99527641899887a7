"""Scopes of models that cannot be hashed, such as one behind a server: told apart by their scores of one row."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np

from apportion.protocols.likeness import Likeness
from apportion_plugins.cache.keys import row_keys
from apportion_plugins.cache.store import Store

__all__ = ["scope_of_model"]

NONCE_BYTES = 16
MOST = 64
"""Models of one name that a file can tell apart."""


def scope_of_model(scope: bytes, likeness: Likeness, store: Store) -> bytes:
    """The scope of the keys of the model that scores a row so.

    For each model there is an entry with its scores of the row and a random number, which belongs to the scope. Once
    an entry is deleted, the rows of its model are not found again, and never taken for those of another.

    Args:
        scope: scope of all models of this name.
        likeness: scores of the row by this model.
        store: where the entries are.
    """
    mine = np.array(likeness.log_probs, dtype="<f8").tobytes()
    nonce = secrets.token_bytes(NONCE_BYTES)
    for generation in range(MOST):
        (key,) = row_keys(_narrowed(scope, f"likeness {generation}".encode()), [likeness.row])
        entry = store.first(key, nonce + mine)
        if likeness.fits(np.frombuffer(entry[NONCE_BYTES:], dtype="<f8").tolist()):
            return _narrowed(scope, entry[:NONCE_BYTES])
    return _narrowed(scope, nonce)


def _narrowed(scope: bytes, by: bytes) -> bytes:
    return hashlib.blake2b(by, digest_size=32, key=scope).digest()
