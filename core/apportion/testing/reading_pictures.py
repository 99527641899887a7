"""The part of the backends' contract on pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from apportion.errors import counted
from apportion.protocols.backend import Capability, Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import Row
from apportion.scoring.prefix_tree import shared_prompt
from apportion.testing import tiny_pictures

__all__ = ["batches_of", "check_pictures", "worst_difference"]


def check_pictures(session: Session, family: str, tolerance: float) -> None:
    """Check rows with pictures against rows that the model reads alone, from pixels.

    Args:
        session: a session of ``tiny_pictures.spec(family)``.
        family: name of the family.
        tolerance: largest difference allowed, in nats.
    """
    assert Capability.IMAGES in session.capabilities, f"The session of {family} reads no pictures."
    rows, notes = tiny_pictures.rows(family), session.info.notes
    together = batches_of(session, rows)
    reversed_order = [batch[::-1] for batch in together[::-1]]
    for batch in (*together, *reversed_order, *([row] for row in rows)):
        worst = worst_difference(session, family, batch)
        assert worst <= tolerance, f"A batch of {counted(len(batch), 'row')} is off by {worst:.3g} nats on {family}."
    one, other = (row for row in rows if row.media == rows[0].media)
    shared = shared_prompt(one, other)
    for prefix in (shared, 1, shared // 2, shared) if session.layout.of(rows).prefix_sharing else ():
        worst = worst_difference(session, family, [one, other], prefix)
        assert worst <= tolerance, f"Rows after {prefix} shared tokens are off by {worst:.3g} nats on {family}."
    assert session.info.notes == notes, f"What the layout allows is not what the session does: {session.info.notes}."


def worst_difference(session: Session, family: str, batch: Sequence[Row], prefix: int = 0) -> float:
    """Largest difference of a batch from its rows read alone from pixels, in nats."""
    worst = 0.0
    for row, ours in zip(batch, session.log_probs(ScoringBatch(tuple(batch), prefix)), strict=True):
        places = torch.arange(len(row.target)), torch.tensor(row.target)
        expected = tiny_pictures.logits(family, row).log_softmax(-1)[places]
        worst = max(worst, float((ours[: len(row.target)].double() - expected).abs().max()))
    return worst


def batches_of(session: Session, rows: Sequence[Row]) -> list[list[Row]]:
    """Rows in batches that the session accepts: all together, or those of one length."""
    if session.layout.of(rows).padding:
        return [list(rows)]
    alike: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        alike.setdefault((len(row.prompt), len(row.target)), []).append(row)
    return list(alike.values())
