"""How fast, and how long still, in words: by the average since the beginning, because batches come in bursts."""

from __future__ import annotations

__all__ = ["left_text", "rate_text"]


def rate_text(rate: float) -> str:
    """Prompts a second, or seconds a prompt where they take longer."""
    return f"{rate:.1f} prompts/s" if rate >= 1 else f"{1 / rate:.1f} s/prompt"


def left_text(done: int, total: int, seconds: float) -> str:
    """How long the rest takes at the rate so far; something is done."""
    minutes, rest = divmod(round((total - done) * seconds / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
