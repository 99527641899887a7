"""The innermost step of scoring, which is passed to hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from apportion.protocols.targets import Needs

if TYPE_CHECKING:
    from apportion.protocols.backend import Session
    from apportion.protocols.batch import ScoringBatch

__all__ = ["Read"]


class Read(Protocol):
    """Scores a batch with a session, and returns one row of numbers for each row of the batch."""

    @property
    def needs(self) -> Needs:
        """``LOG_PROBS`` if it returns log-probabilities of the target tokens, ``Float[B, T]``.

        ``LOGITS`` if it returns values that a target function computed from logits; they are of no use to anything
        else.
        """
        ...

    def __call__(self, session: Session, batch: ScoringBatch) -> Tensor:
        """Score the batch."""
        ...
