"""Conversion of targets and contrasts to token ids, and generation of targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from apportion.errors import InputError, counted, shown
from apportion.protocols.backend import Session
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Target
from apportion.rendering.context import AdaptContext, tokenizer_of_targets
from apportion.rendering.continuation import Continuation, continuation
from apportion.rendering.encoder import check_encodable
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.spelling import Spelling, other_spelling
from apportion.rendering.token_texts import note_on_unknown, token_texts
from apportion.runs.generation import Generation, cut_at
from apportion.scoring.writer import generated_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Targets"]


class Targets:
    """Makes targets for one session.

    Args:
        session: session that encodes and generates targets.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _joint(self) -> bool:
        return self._session.layout.joint

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of targets."""
        return tokenizer_of_targets(self._session)

    def _apart(self) -> AdaptContext:
        """The context of targets that a decoder reads from its own beginning."""
        return AdaptContext(self._tokenizer, as_target=True)

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
            return self.of_ids(given)
        if self._joint:
            found = continuation(prompt, name, given)
            before: tuple[int, ...] = prompt.input.ids
        else:
            # A decoder reads the target from its own beginning, as a text of its own.
            (ids,) = self._apart().encode([given], special_tokens=False)
            found, before = Continuation(ids), ()
        if not found.ids:
            raise InputError(f"The {name} {shown(given)} is empty: it adds no tokens to this prompt.")
        texts = token_texts(self._tokenizer, (*before, *found.ids), len(before))
        unknown = note_on_unknown(self._tokenizer, name, given, found.ids, as_target=not self._joint)
        notes = tuple(note for note in (found.note, unknown) if note)
        return Target(found.ids, texts, given, notes=notes)

    def spellings(
        self, texts: Iterable[tuple[str | tuple[int, ...] | None, Target | None]], prompt: FullPrompt
    ) -> tuple[Spelling, ...]:
        """The other spellings of the texts among these; token ids have none, nor has what a decoder reads apart.

        Args:
            texts: what the user gave, and the target or contrast that was made of it.
            prompt: the prompt with all features.
        """
        if not self._joint:
            return ()
        found = (
            other_spelling(prompt, text, made.ids) for text, made in texts if isinstance(text, str) and made is not None
        )
        return tuple(spelling for spelling in found if spelling is not None)

    def of_ids(self, ids: tuple[int, ...]) -> Target:
        """Make a target of token ids."""
        return Target(ids, token_texts(self._tokenizer, ids), str(self._tokenizer.decode(list(ids))))

    def written(self, prompt: FullPrompt, generation: Generation, seed: int) -> tuple[Target, Generation]:
        """Generate a target with the model; a note says that the model wrote it, and why it ends where it does.

        Returns:
            The target, and the options that it was written with: an automatic stop text is given up if the answer
            begins with it.

        Raises:
            CapabilityError: the session cannot generate.
            InputError: the model generates nothing, or begins with a stop text that the user gave, or an option is
                unknown to its generation.
        """
        ids = self._generated(prompt.input, generation.options, seed, generation.stop)
        before = prompt.input.ids if self._joint else ()
        context = prompt.context if self._joint else self._apart()
        cut = cut_at(generation.stop, context, before, ids)
        if cut is not None and str(self._tokenizer.decode(list(cut.ids))).strip():
            return self._by_model(cut.ids, "stop", generation.why(cut)), generation
        if cut is not None and not generation.automatic:
            raise InputError(
                f"The model begins with the stop text {cut.stop!r}, so there is no text before it to explain. Choose "
                "another stop=, or give a target."
            )
        if cut is not None:  # answers take a line, but this one does not begin on it
            generation = Generation(generation.options)
            ids = self._generated(prompt.input, generation.options, seed, ())
        if ids[-1] in self._ends(generation.options):
            why = f"and ended it with {self._tokenizer.convert_ids_to_tokens(ids[-1])}"
            return self._by_model(ids, "model", why), generation
        return self._by_model(ids, "limit", f"which was cut off after {counted(len(ids), 'token')}"), generation

    def of_text(self, text: str, *, generated: bool) -> Target:
        """Make a target that is compared as a text, and not scored as tokens.

        Args:
            text: the text.
            generated: the model wrote it.

        Raises:
            InputError: it has no tokens, because the model wrote nothing.
        """
        (ids,) = AdaptContext(self._tokenizer, as_target=not self._joint).encode([text], special_tokens=False)
        if not ids:
            why = (
                "the model wrote nothing after the full prompt"
                if generated
                else f"the target {shown(text)} has no tokens"
            )
            raise InputError(f"There is no text to compare with: {why}. Give a target.")
        notes = ("the model wrote the target",) if generated else ()
        return Target(ids, token_texts(self._tokenizer, ids), text, generated=generated, notes=notes)

    def _ends(self, options: Mapping[str, object]) -> frozenset[int]:
        """The tokens that end a generation; no other control token does, such as padding, after which it goes on."""
        found: object = options.get("eos_token_id")
        if found is None:
            found = getattr(self._session, "end_ids", self._tokenizer.eos_token_id)
        listed = found if isinstance(found, Iterable) else (found,)
        return frozenset(token for token in listed if isinstance(token, int))

    def _by_model(self, ids: tuple[int, ...], end: str, why: str) -> Target:
        return replace(self.of_ids(ids), generated=True, end=end, notes=(f"the model wrote the target, {why}",))

    def _generated(
        self, prompt: ModelInput, options: Mapping[str, object], seed: int, stop: tuple[str, ...]
    ) -> tuple[int, ...]:
        """The tokens that the model writes, at least one; a session that knows no stop texts writes on."""
        ids = generated_ids(self._session, prompt, options, seed, stop)
        if not ids:
            raise InputError("The model generated nothing after this prompt; give a target.")
        return ids

    def check_prompt(self, prompt: ModelInput) -> None:
        """Reject a prompt that leaves no room for a target.

        Raises:
            InputError: the prompt is too long; the message states both lengths.
        """
        limit, tokens = self._session.info.context_length, len(prompt.ids)
        if limit is not None and (tokens >= limit if self._joint else tokens > limit):
            raise InputError(
                f"The prompt has {counted(tokens, 'token')} and the model's context length is {limit}; shorten the "
                "prompt."
            )

    def _checked_ids(self, name: str, given: object) -> tuple[int, ...]:
        values = given.tolist() if isinstance(given, torch.Tensor | np.ndarray) else given
        if isinstance(values, Sequence) and not isinstance(values, bytes):
            values = [int(i) if isinstance(i, np.integer) else i for i in values]
        if not isinstance(values, list) or not all(type(i) is int for i in values):
            raise InputError(f"The {name} must be a string, token ids or None; it is {shown(given)}.")
        if not values:
            hint = ", or None for the model's own continuation" if name == "target" else ""
            raise InputError(f"The {name} is an empty list of token ids. Give at least one id{hint}.")
        vocabulary = self._session.info.written_vocabulary
        wrong = [i for i in values if i < 0 or (vocabulary is not None and i >= vocabulary)]
        if wrong:
            size = "" if vocabulary is None else f" of {vocabulary} tokens"
            raise InputError(f"The {name} id {shown(wrong[0])} is outside the vocabulary{size}.")
        return tuple(values)
