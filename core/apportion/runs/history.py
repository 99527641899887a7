"""What an explainer keeps of its runs, for as long as their results live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.game.game import Memory
    from apportion.protocols.request import Request
    from apportion.results.attribution import Attribution
    from apportion.scoring.scorer import Tally

__all__ = ["Past", "PastRuns"]


@dataclass(frozen=True, slots=True)
class Past:
    """A run that ended well.

    Attributes:
        request: what was asked.
        tally: what it cost.
        memory: every value that was scored.
        seconds: how long it took.
    """

    request: Request
    tally: Tally
    memory: Memory
    seconds: float


class PastRuns:
    """Runs by their results."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[Attribution, Past] = WeakKeyDictionary()

    def keep(self, result: Attribution, run: Past) -> None:
        """Keep a run until its result is gone."""
        self._runs[result] = run

    def of(self, result: Attribution) -> Past:
        """The run that made this result.

        Raises:
            InputError: it was made by another explainer, or read from a file.
        """
        from apportion.results.attribution import Attribution

        if not isinstance(result, Attribution):
            raise InputError(f"A result of `attribute` is needed, not {type(result).__name__}: {result!r:.80}.")
        found = self._runs.get(result)
        if found is None:
            raise InputError(
                "This result was not made by this explainer (it was read from a file, copied, or made by another "
                "explainer), so what it scored is not at hand. Run attribute() again with the same arguments; with "
                "Explainer(cache=True) nothing is scored twice."
            )
        return found
