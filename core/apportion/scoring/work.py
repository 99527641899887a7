"""The work that a model does for a plan, in quantities that its time grows with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apportion.scoring.plan import Plan

__all__ = ["Work", "attended", "work_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one or more forward passes.

    Attributes:
        forwards: number of forward passes.
        tokens: number of tokens that the model reads.
        pairs: number of pairs of a token that is read and a token that it attends to; attention grows with it.
    """

    forwards: int = 0
    tokens: int = 0
    pairs: int = 0

    def __add__(self, other: Work) -> Work:
        """Work of both."""
        return Work(self.forwards + other.forwards, self.tokens + other.tokens, self.pairs + other.pairs)


def work_of(plans: Iterable[Plan]) -> Work:
    """Work of all batches of some plans."""
    total = Work()
    for plan in plans:
        pairs = sum(attended(len(row.read), tokens) for row, tokens in zip(plan.rows, plan.costs, strict=True))
        total += Work(plan.ways[0].forwards, plan.forwarded_tokens, pairs)
    return total


def attended(length: int, tokens: int) -> int:
    """Pairs of tokens for reading some tokens of a sequence.

    Args:
        length: length of the sequence.
        tokens: number of tokens that are read: its last ones; more than its length if it is padded, or read several
            times for several targets.
    """
    times = max(1, round(tokens / length))
    width = tokens / times
    return round(times * width * (2 * max(length, width) - width + 1) / 2)
