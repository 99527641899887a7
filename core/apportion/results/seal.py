"""The hash of a saved result or manifest, by which a file that was changed after it was saved is recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SEAL", "intact", "seal_of"]

SEAL = "seal"
"""The field of the hash."""


def seal_of(data: Mapping[str, Any]) -> str:
    """Hash of all other fields of saved data, whatever their order and layout; empty if JSON cannot hold them."""
    content = {name: value for name, value in data.items() if name != SEAL}
    try:
        # Through JSON once, because it makes all keys strings, which can be sorted.
        text = json.dumps(json.loads(json.dumps(content, allow_nan=False)), sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def intact(data: Mapping[str, Any]) -> bool:
    """True if data are as they were saved."""
    found = data.get(SEAL)
    return bool(found) and found == seal_of(data)
