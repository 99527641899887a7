"""Rendering of coalitions to model inputs that can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError
from apportion.failures import failures_of_plugin
from apportion.protocols.inputs import Alternatives, InputAdapter
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import EMPTY, FULL
from apportion.rendering.context import AdaptContext
from apportion.rendering.prompt_text import FullPrompt, notes_on_special_tokens, text_of_prompt

__all__ = ["Renderer"]


class Renderer:
    """An adapter's ``render``, with empty prompts replaced by the start token.

    The first target token is predicted from the tokens before it, so a prompt needs at least one token. A coalition
    without any text is scored after the model's beginning-of-sequence token (or its end-of-text token, which separates
    documents in training), and the result says so.

    Args:
        adapter: the prompt's adapter.
        context: the context in which the adapter split the prompt.
    """

    def __init__(self, adapter: InputAdapter, context: AdaptContext) -> None:
        self._adapter = adapter
        self._context = context
        self._tokenizer = context.tokenizer
        self._notes: dict[str, None] = dict.fromkeys(getattr(adapter, "notes", ()))
        self.draws: int = getattr(adapter, "draws", 1)

    def of(self, adapter: InputAdapter) -> Renderer:
        """A renderer of another adapter of the same prompt, which shares the notes of this one."""
        other = Renderer(adapter, self._context)
        other._notes = self._notes
        return other

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about the inputs, for the result."""
        return tuple(self._notes)

    def note(self, text: str | None) -> None:
        """Add a note for the result; ``None`` adds nothing."""
        if text is not None:
            self._notes[text] = None

    def full(self) -> ModelInput:
        """The prompt with all features present."""
        return self._alike(present=True)

    def empty(self) -> ModelInput:
        """The prompt with all features absent; the first of its alternatives, if it has some."""
        return self._alike(present=False)

    def _alike(self, *, present: bool) -> ModelInput:
        (item,) = self(torch.full((1, len(self._adapter.features)), present))
        return item.inputs[0] if isinstance(item, Alternatives) else item

    def full_prompt(self) -> FullPrompt:
        """The prompt with all features present, and its text; keeps notes on special tokens around it."""
        full = self.full()
        text = text_of_prompt(self._context, self._adapter, full.ids)
        self._notes |= dict.fromkeys(notes_on_special_tokens(self._context, full.ids, text))
        return FullPrompt(full, text, self._context)

    def reference(self, name: object) -> ModelInput | None:
        """Render the prompt to compare with: ``"full"``, ``"empty"``, or a text; ``None`` stays ``None``.

        Raises:
            InputError: ``name`` is none of these, or is not a single prompt because baselines have alternatives.
        """
        if name is None:
            return None
        if not isinstance(name, str):
            raise InputError(f"reference={name!r} must be 'full', 'empty' or the text of a prompt.")
        if name not in (FULL, EMPTY):
            (ids,) = self._context.encode([name])
            return ModelInput(ids) if ids else self._empty()
        if name == FULL:
            return self.full()
        (item,) = self(torch.zeros(1, len(self._adapter.features), dtype=torch.bool))
        if isinstance(item, Alternatives):
            raise InputError(
                "The prompt without features has alternative baselines, but a single prompt is needed to compare with. "
                "Give its text: target_options={'reference': '…'}."
            )
        return item

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Sequence[ModelInput | Alternatives]:
        """Render coalitions to inputs of at least one token each.

        Raises:
            PluginError: the adapter failed, or returned something else than inputs.
        """
        with failures_of_plugin(f"The adapter {type(self._adapter).__name__}", asks=False):
            return [self._started(item) for item in self._adapter.render(mask)]

    def _started(self, item: ModelInput | Alternatives) -> ModelInput | Alternatives:
        if isinstance(item, Alternatives):
            return Alternatives(tuple(map(self._begun, item.inputs)))
        return self._begun(item)

    def _begun(self, item: ModelInput) -> ModelInput:
        return item if item.ids else replace(item, ids=self._empty().ids)

    def start(self) -> int | None:
        """The token that an empty prompt begins with, if the tokenizer has one."""
        tokenizer = self._tokenizer
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return start if isinstance(start, int) else None

    def _empty(self) -> ModelInput:
        start = self.start()
        if start is None:
            raise InputError(
                "A coalition leaves no text, and the tokenizer has no start token to predict from. "
                "Use keep=, a baseline, or a template with fixed text."
            )
        token = self._tokenizer.convert_ids_to_tokens(start)
        self._notes[f"a prompt without any text is scored after the token {token}"] = None
        return ModelInput((start,))
