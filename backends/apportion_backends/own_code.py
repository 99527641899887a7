"""A hash of a package's own code, for what is remembered of its findings."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

__all__ = ["code_hash"]


@functools.cache
def code_hash(*folders: Path) -> str:
    """A hash of the modules in these folders."""
    digest = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
