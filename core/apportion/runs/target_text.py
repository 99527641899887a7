"""From what a user gives as target or contrast to token ids, and the target that the model writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from apportion.errors import CapabilityError, InputError
from apportion.protocols.backend import Capability, GenerateSession, Session
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Target
from apportion.rendering.encoder import check_encodable
from apportion.rendering.token_texts import token_texts

__all__ = ["Targets"]


class Targets:
    """Makes targets for one session.

    Args:
        session: whose tokenizer encodes them, and which generates.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tokenizer = session.tokenizer

    def given(self, name: str, given: object) -> Target:
        """A target or contrast that the user gave, as a text or token ids.

        Args:
            name: ``"target"`` or ``"contrast"``, for messages.
            given: the text, without special tokens, or the ids.

        Raises:
            InputError: it is empty, cannot be encoded, or is outside the vocabulary.
        """
        if not isinstance(given, str):
            return self._of_ids(self._checked_ids(name, given))
        check_encodable(name, given)
        ids = tuple(self._tokenizer(given, add_special_tokens=False)["input_ids"])
        if not ids:
            raise InputError(f"The {name} {given!r} is empty: the tokenizer makes no tokens of it.")
        return replace(self._of_ids(ids), text=given)

    def written(self, prompt: ModelInput, options: Mapping[str, object], seed: int) -> Target:
        """The target that the model writes after the prompt.

        Raises:
            CapabilityError: the session cannot generate.
            InputError: the model writes nothing, or its generation does not know an option.
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
        """Refuse a prompt that leaves no room for a target.

        Raises:
            InputError: with both lengths.
        """
        limit, tokens = self._session.info.context_length, len(prompt.ids)
        if limit is not None and (tokens >= limit if self._session.layout.joint else tokens > limit):
            raise InputError(
                f"The prompt has {tokens} tokens and the model's context length is {limit}; shorten the prompt."
            )

    def _of_ids(self, ids: tuple[int, ...]) -> Target:
        return Target(ids, token_texts(self._tokenizer, ids), str(self._tokenizer.decode(list(ids))))

    def _checked_ids(self, name: str, given: object) -> tuple[int, ...]:
        values = given.tolist() if isinstance(given, torch.Tensor | np.ndarray) else given
        if isinstance(values, Sequence) and not isinstance(values, bytes):
            values = [int(i) if isinstance(i, np.integer) else i for i in values]
        if not isinstance(values, list) or not all(type(i) is int for i in values):
            raise InputError(f"The {name} must be a text, token ids or None; it is {given!r:.80}.")
        if not values:
            hint = ", or None to generate" if name == "target" else ""
            raise InputError(f"The {name} is an empty list of token ids; give at least one{hint}.")
        vocabulary = self._session.info.vocabulary
        wrong = [i for i in values if i < 0 or (vocabulary is not None and i >= vocabulary)]
        if wrong:
            size = "" if vocabulary is None else f" of {vocabulary} tokens"
            raise InputError(f"The {name} id {wrong[0]} is outside the vocabulary{size}.")
        return tuple(values)
