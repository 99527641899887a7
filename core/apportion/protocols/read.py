"""The innermost step of scoring, which hooks are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from apportion.protocols.targets import Needs

if TYPE_CHECKING:
    from apportion.protocols.backend import Session
    from apportion.protocols.batch import ScoringBatch

__all__ = ["Read"]


class Read(Protocol):
    """Scores a batch with a session, and gives one line of numbers for each row."""

    @property
    def needs(self) -> Needs:
        """``LOG_PROBS``: it gives log-probabilities of the target tokens, ``Float[B, T]``.

        ``LOGITS``: it gives what a target function makes of logits, which nobody else can use.
        """
        ...

    def __call__(self, session: Session, batch: ScoringBatch) -> Tensor:
        """Score the batch."""
        ...
