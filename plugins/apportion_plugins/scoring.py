"""The fallback for ``apportion_score``: the session of the run scores the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from apportion.protocols.backend import Session
    from apportion.protocols.batch import ScoringBatch
    from apportion.protocols.read import Read


@hookimpl(trylast=True)
def apportion_score(session: Session, batch: ScoringBatch, read: Read) -> Tensor:
    """Score the batch with the run's own session; wrappers see the result."""
    return read(session, batch)
