"""The last answer to ``apportion_score``: the session itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from apportion.protocols.backend import ScoringBatch, Session


@hookimpl(trylast=True)
def apportion_score(session: Session, batch: ScoringBatch) -> Float[Tensor, "B T"]:
    """Score the batch where it was loaded to; wrappers see the log-probabilities."""
    return session.log_probs(batch)
