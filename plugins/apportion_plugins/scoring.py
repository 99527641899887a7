"""The last answer to ``apportion_score``: the batch is scored by the run's own session."""

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
    """Score the batch where the model was loaded; wrappers see what was read."""
    return read(session, batch)
