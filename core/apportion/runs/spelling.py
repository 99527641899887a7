"""Notes on targets and contrasts that were probably meant with another space.

The full prompt is scored once more, after the run, with the other spelling of the text. Only a text that was given
without the usual space before it costs that. It counts neither as an evaluation nor towards the budget, and its tokens
are not among those that were forwarded: these describe how the values were found, which does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from apportion.errors import ApportionError
from apportion.phrases import quoted
from apportion.protocols.row import ModelInput
from apportion.rendering.spelling import Spelling

__all__ = ["LIKELIER", "spelling_note"]

LIKELIER = math.log(10)
"""The other spelling is named if it is more than ten times as likely, in nats."""
LONGEST = 40
"""Maximum number of characters of a text in a note."""


def spelling_note(
    spelling: Spelling, known: float | None, score: Callable[[ModelInput, tuple[int, ...]], float]
) -> str | None:
    """A sentence on the other spelling, if it is far more likely than the given one; ``None`` if it is not.

    Args:
        spelling: the two spellings.
        known: log-probability of the text that was given, if the run found it.
        score: returns the log-probability of tokens after a prompt.
    """
    try:
        meant = score(spelling.meant_prompt, spelling.meant_ids)
        given = score(spelling.given_prompt, spelling.given_ids) if known is None else known
    except (ApportionError, torch.OutOfMemoryError):
        # The result is there already; a longer text may not fit where the given one does.
        return None
    if not meant - given > LIKELIER:
        return None
    scores = f"{meant:.2f} instead of {given:.2f} nats".replace("-", "−")
    return f"did you mean {quoted(spelling.meant, LONGEST)}{_where(spelling)}? Its log-probability is {scores}"


def _where(spelling: Spelling) -> str:
    if spelling.moved:
        return " after the prompt without the space at its end"
    given, meant = (len(text) - len(text.lstrip(" ")) for text in (spelling.given, spelling.meant))
    if not meant:
        return ", without a space at its beginning"
    return ", with a space at its beginning" if not given else ", with one space at its beginning"
