"""How fast, in words."""

from __future__ import annotations

__all__ = ["rate_text"]


def rate_text(rate: float) -> str:
    """Prompts a second, or seconds a prompt where they take longer."""
    return f"{rate:.1f} prompts/s" if rate >= 1 or rate <= 0 else f"{1 / rate:.1f} s/prompt"
