"""Rendering of conversations with the model's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, listing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatWriter"]


class ChatWriter:
    """Applies one chat template with one set of options.

    The result must be encoded without adding special tokens, because the template has written them.

    Args:
        tokenizer: the tokenizer of the model.
        chat_template: a Jinja template, a name, or ``None`` for the tokenizer's default.
        options: additional variables for the template.
        tools: the conversation has tools.
        add_generation_prompt: begin the assistant's answer.
        continues: leave the last message open instead.

    Raises:
        InputError: there is no chat template, or it does not use one of the options, or it does not show tools.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: str | None = None,
        options: Mapping[str, object] | None = None,
        tools: bool = False,
        add_generation_prompt: bool = True,
        continues: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._options: dict[str, Any] = {
            **(options or {}),
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt and not continues,
            "continue_final_message": continues,
        }
        if chat_template is None and not tokenizer.chat_template:
            raise InputError(
                "The tokenizer of this model has no chat template, so it cannot format a conversation. Pass "
                "chat_template= (a Jinja template), choose a model that is trained for chat, or use ap.Text or "
                "ap.Template."
            )
        source = self._source(chat_template, tools=tools)
        for name in options or {}:
            if not _mentions(source, name):
                raise InputError(f"The chat template does not use {name!r}; remove it from template_options.")
        if tools and not _mentions(source, "tools"):
            raise InputError("The chat template of this model does not show tools, so they have no effect.")

    def write(self, messages: Sequence[Mapping[str, object]], tools: Sequence[object] = ()) -> str:
        """Render the conversation as text, including control tokens.

        Raises:
            InputError: the template failed; the message is the template's own.
        """
        arguments: dict[str, Any] = {"conversation": [dict(m) for m in messages], "tools": list(tools) or None}
        try:
            return str(self._tokenizer.apply_chat_template(**arguments, tokenize=False, **self._options))
        except Exception as error:  # third-party templates may raise anything
            raise InputError(" ".join(str(error).split()) or type(error).__name__) from error

    def _source(self, chat_template: str | None, *, tools: bool) -> str:
        try:
            source = str(self._tokenizer.get_chat_template(chat_template, [{}] if tools else None))
        except ValueError as error:
            raise InputError(f"There is no chat template to use: {error}") from error
        if not _mentions(source, "messages"):
            named = self._tokenizer.chat_template
            names = f" The tokenizer has templates called {listing(named)}." if isinstance(named, dict) else ""
            raise InputError(f"chat_template={source!r:.80} is not a chat template: it does not use `messages`.{names}")
        return source


def _mentions(source: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", source) is not None
