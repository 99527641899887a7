"""Rate and remaining time as text, averaged since the start because batches arrive in bursts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["State", "Timing", "facts_of", "left_text", "rate_text"]


@dataclass(frozen=True, slots=True)
class State:
    """The state that a bar or a line shows.

    Attributes:
        label: the current activity.
        done: number completed so far.
        total: number in all; ``None`` if unknown.
        more: further text.
        share: what is done of those under way, in the same unit.
        works: the model has worked on them; what is done before that came from a cache and says nothing about the rate.
    """

    label: str
    done: int
    total: int | None = None
    more: str = ""
    share: float = 0.0
    works: bool = True

    @property
    def count(self) -> str:
        """The numbers, as far as they say something."""
        if self.total is not None:
            return f"{self.done:,}/{self.total:,}"
        return f"{self.done:,}" if self.done else ""

    def follows(self, before: State | None) -> bool:
        """True if this state continues another one; a new label or total, or a smaller count, begins anew."""
        return (
            before is not None and (self.label, self.total) == (before.label, before.total) and self.done >= before.done
        )


class Timing:
    """The rate and the remaining time of what a bar shows. Time without any work does not count.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state: State | None = None
        self._began = clock()
        self._free = 0.0

    def note(self, state: State) -> bool:
        """Note the current state.

        Returns:
            True if it does not follow the last one, so that the rate begins anew.
        """
        begins = not state.follows(self._state)
        self._state = state
        if begins:
            # What was done before the clock started took an unknown time.
            self._began, self._free = self._clock(), state.done + state.share
        if not state.works:
            self._began, self._free = self._clock(), state.done + state.share
        return begins

    def facts(self) -> list[str]:
        """The rate and the remaining time, as far as they are known."""
        state = self._state
        if state is None or state.total is None:
            return []
        done = state.done + state.share
        return facts_of(done - self._free, state.total - self._free, self._clock() - self._began)


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
