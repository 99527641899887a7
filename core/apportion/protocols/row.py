"""A row: what is scored by itself, whatever batch it stands in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """A prompt and the target that is scored after it.

    Attributes:
        prompt: token ids, at least one.
        target: token ids, at least one.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What a model reads of it: the last target token is predicted only."""
        return self.prompt + self.target[:-1]
