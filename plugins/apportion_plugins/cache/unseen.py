"""What a checksum cannot see, and what it must not see."""

from __future__ import annotations

import re

__all__ = ["UnseenError", "stable"]


class UnseenError(Exception):
    """Something that may change scores and shows in no checksum; the message says what: ``the model has …``."""


def stable(text: str) -> str:
    """Without addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
