"""Conversion of targets and contrasts to token ids, and generation of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from apportion.errors import CapabilityError, InputError, counted
from apportion.protocols.backend import Capability, GenerateSession, Session
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Target
from apportion.rendering.continuation import Continuation, continuation
from apportion.rendering.encoder import check_encodable
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.token_texts import token_texts

__all__ = ["Targets"]


class Targets:
    """Makes targets for one session.

    Args:
        session: session that encodes and generates targets.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tokenizer = session.tokenizer

    def checked(self, name: str, given: object) -> str | tuple[int, ...]:
        """Check what can be checked of a target or contrast before its prompt is rendered.

        Args:
            name: ``"target"`` or ``"contrast"``, for messages.
            given: a text, or token ids.

        Raises:
            InputError: the target is empty, is not valid Unicode, or has an id outside the vocabulary.
        """
        if not isinstance(given, str):
            return self._checked_ids(name, given)
        check_encodable(name, given)
        if not given:
            hint = "Give a text, or None for the model's own continuation" if name == "target" else "Give a text"
            raise InputError(f"The {name} is an empty string. {hint}.")
        return given

    def given(self, name: str, given: str | tuple[int, ...], prompt: FullPrompt) -> Target:
        """Make a target or contrast of the full prompt; after perturbed prompts it keeps the same tokens.

        Args:
            name: ``"target"`` or ``"contrast"``, for messages.
            given: a text, whose tokens are those with which it continues the prompt, or token ids.
            prompt: the prompt with all features.

        Raises:
            InputError: the text adds no tokens to the prompt.
        """
        if not isinstance(given, str):
            return self._of_ids(given)
        if self._session.layout.joint:
            found = continuation(prompt, name, given)
            before: tuple[int, ...] = prompt.input.ids
        else:
            # A decoder reads the target from its own beginning, as a text of its own.
            found = Continuation(tuple(self._tokenizer(given, add_special_tokens=False)["input_ids"]))
            before = ()
        if not found.ids:
            raise InputError(f"The {name} {given!r} is empty: it adds no tokens to this prompt.")
        texts = token_texts(self._tokenizer, (*before, *found.ids), len(before))
        return Target(found.ids, texts, given, notes=(found.note,) if found.note else ())

    def written(self, prompt: ModelInput, options: Mapping[str, object], seed: int) -> Target:
        """Generate a target with the model.

        Raises:
            CapabilityError: the session cannot generate.
            InputError: the model generates nothing, or an option is unknown to its generation.
        """
        session = self._session
        if Capability.GENERATE not in session.capabilities or not isinstance(session, GenerateSession):
            raise CapabilityError(
                f"The backend {session.info.backend!r} cannot generate with this model; give a target."
            )
        limit = session.info.context_length
        room = None if limit is None else limit - len(prompt.ids) if session.layout.joint else limit
        ids = session.generate(prompt, options, seed, room)
        if not ids:
            raise InputError("The model generated nothing after this prompt; give a target.")
        return replace(self._of_ids(ids), generated=True)

    def check_prompt(self, prompt: ModelInput) -> None:
        """Reject a prompt that leaves no room for a target.

        Raises:
            InputError: the prompt is too long; the message states both lengths.
        """
        limit, tokens = self._session.info.context_length, len(prompt.ids)
        if limit is not None and (tokens >= limit if self._session.layout.joint else tokens > limit):
            raise InputError(
                f"The prompt has {counted(tokens, 'token')} and the model's context length is {limit}; shorten the "
                f"prompt."
            )

    def _of_ids(self, ids: tuple[int, ...]) -> Target:
        return Target(ids, token_texts(self._tokenizer, ids), str(self._tokenizer.decode(list(ids))))

    def _checked_ids(self, name: str, given: object) -> tuple[int, ...]:
        values = given.tolist() if isinstance(given, torch.Tensor | np.ndarray) else given
        if isinstance(values, Sequence) and not isinstance(values, bytes):
            values = [int(i) if isinstance(i, np.integer) else i for i in values]
        if not isinstance(values, list) or not all(type(i) is int for i in values):
            raise InputError(f"The {name} must be a string, token ids or None; it is {given!r:.80}.")
        if not values:
            hint = ", or None for the model's own continuation" if name == "target" else ""
            raise InputError(f"The {name} is an empty list of token ids. Give at least one id{hint}.")
        vocabulary = self._session.info.vocabulary
        wrong = [i for i in values if i < 0 or (vocabulary is not None and i >= vocabulary)]
        if wrong:
            size = "" if vocabulary is None else f" of {vocabulary} tokens"
            raise InputError(f"The {name} id {wrong[0]} is outside the vocabulary{size}.")
        return tuple(values)
