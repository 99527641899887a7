"""Texts that do not differ from process to process."""

from __future__ import annotations

import re

__all__ = ["stable"]


def stable(text: str) -> str:
    """Remove addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
