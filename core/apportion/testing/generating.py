"""Checks of sessions that generate."""

from __future__ import annotations

import inspect

from apportion.protocols.backend import GenerateSession
from apportion.protocols.row import ModelInput

__all__ = ["check_stop_texts"]

TOKENS = 6
PROMPTS = tuple(tuple(range(first, first + 5)) for first in range(1, 200, 5))
"""Prompts to try, until the model begins with tokens that are whole characters."""


def check_stop_texts(session: GenerateSession) -> None:
    """If ``generate`` takes stop texts, the token that completes one is the last that is written."""
    if "stop" not in inspect.signature(session.generate).parameters:
        return
    for prompt in PROMPTS:
        written = session.generate(ModelInput(prompt), {"max_new_tokens": TOKENS}, 0)
        start = str(session.tokenizer.decode(list(written[:2])))
        if len(written) == TOKENS and start.strip() and "\ufffd" not in start:
            ended = session.generate(ModelInput(prompt), {"max_new_tokens": TOKENS}, 0, None, [start])
            assert ended == written[:2], f"With the stop text {start!r}, it wrote {ended}, not {written[:2]}."
            return
