"""Rate and remaining time as text, averaged since the start because batches arrive in bursts."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Timing", "facts_of", "left_text", "rate_text"]


class Timing:
    """The rate and the remaining time of what a bar shows. Time without any work does not count.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state: tuple[str, int | None, int] | None = None
        self._began = clock()
        self._free = self._done = 0.0

    def note(self, label: str, done: int, total: int | None, share: float = 0.0, *, works: bool = True) -> bool:
        """Note the current state. A new label or total, or a smaller count, begins anew.

        Args:
            label: the current activity.
            done: number completed so far.
            total: number in all; ``None`` if unknown.
            share: what is done of those under way, in the same unit.
            works: the model has worked on them; what is done before that came from a cache and says nothing about
                the rate.

        Returns:
            True if it began anew.
        """
        begins = self._state is None or (label, total) != self._state[:2] or done < self._state[2]
        self._state, self._done = (label, total, done), done + share
        if begins:
            self._began, self._free = self._clock(), 0.0
        if not works:
            self._began, self._free = self._clock(), self._done
        return begins

    def facts(self) -> list[str]:
        """The rate and the remaining time, as far as they are known."""
        total = None if self._state is None else self._state[1]
        if total is None:
            return []
        return facts_of(self._done - self._free, total - self._free, self._clock() - self._began)


def facts_of(done: float, total: float | None, seconds: float) -> list[str]:
    """The rate and the remaining time, as far as they are known.

    Args:
        done: number completed so far, with parts of those under way.
        total: number in all; ``None`` if unknown.
        seconds: time since the start.
    """
    if done <= 0 or not total or seconds <= 0:
        return []
    return [rate_text(done / seconds), left_text(done, total, seconds)]


def rate_text(rate: float) -> str:
    """Prompts per second, or seconds per prompt if each takes longer than a second."""
    return f"{rate:.1f} prompts/s" if rate >= 1 else f"{1 / rate:.1f} s/prompt"


def left_text(done: float, total: float, seconds: float) -> str:
    """Remaining time at the average rate so far; ``done`` must not be 0."""
    minutes, rest = divmod(round((total - done) * seconds / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
