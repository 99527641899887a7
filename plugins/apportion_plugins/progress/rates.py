"""Rate and remaining time as text, averaged since the start because batches arrive in bursts."""

from __future__ import annotations

__all__ = ["facts_of", "left_text", "rate_text"]


def facts_of(done: float, total: int | None, seconds: float) -> list[str]:
    """The rate and the remaining time, as far as they are known.

    Args:
        done: number completed so far, with parts of those under way.
        total: number in all; ``None`` if unknown.
        seconds: time since the start.
    """
    if not done or not total or seconds <= 0:
        return []
    return [rate_text(done / seconds), left_text(done, total, seconds)]


def rate_text(rate: float) -> str:
    """Prompts per second, or seconds per prompt if each takes longer than a second."""
    return f"{rate:.1f} prompts/s" if rate >= 1 else f"{1 / rate:.1f} s/prompt"


def left_text(done: float, total: int, seconds: float) -> str:
    """Remaining time at the average rate so far; ``done`` must not be 0."""
    minutes, rest = divmod(round((total - done) * seconds / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
