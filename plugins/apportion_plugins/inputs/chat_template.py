"""Rendering of conversations with the model's chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, listing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatWriter", "check_control_tokens"]


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


def check_control_tokens(tokenizer: PreTrainedTokenizerBase, contents: object, *, allowed: bool) -> tuple[str, ...]:
    """Look for special tokens in texts, which may be nested in dicts and lists.

    Returns:
        A note on the special tokens found, if they are allowed.

    Raises:
        InputError: special tokens were found and are not allowed.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    texts = list(_texts(contents))
    found = sorted(token for token in special if token and any(token in text for text in texts))
    if not found:
        return ()
    if allowed:
        return (f"contents contain control tokens, which are read as such: {listing(found)}",)
    raise InputError(
        f"The contents contain {listing(map(repr, found))}, which the tokenizer reads as control tokens: the model "
        "would take them for message markup rather than text. Remove or rephrase them, or pass "
        "allow_control_tokens=True to have them read as control tokens."
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _mentions(source: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", source) is not None
