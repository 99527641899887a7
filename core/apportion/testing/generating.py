"""Checks of sessions that generate."""

from __future__ import annotations

import inspect
from itertools import product

from apportion.protocols.backend import Capability, GenerateSession, TextSession
from apportion.protocols.row import ModelInput
from apportion.rendering.token_texts import control_ids

__all__ = ["check_stop_texts", "check_texts"]

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


def check_texts(session: GenerateSession) -> None:
    """If a session also writes texts, a greedy one is the text of the tokens that it generates."""
    if Capability.TEXT not in session.capabilities:
        return
    assert isinstance(session, TextSession), "It has the capability TEXT, but no write_text."
    control = control_ids(session.tokenizer)
    for prompt, count in product(PROMPTS, (TOKENS, 1)):
        ids = session.generate(ModelInput(prompt), {"max_new_tokens": count}, 0)
        wanted = str(session.tokenizer.decode([token for token in ids if token not in control]))
        if "\ufffd" not in wanted:
            text = session.write_text(ModelInput(prompt), {"max_new_tokens": count}, 0)
            assert text == wanted, f"It wrote {text!r}; its tokens have the text {wanted!r}."
            return
