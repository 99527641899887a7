"""Texts and messages as token ids, for servers that take no token ids: a tokenizer whose every id can be undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Asked", "asked_of", "message_tokenizer"]

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT, TOOLS, MESSAGE, END = "⟦text⟧", "⟦tools⟧", "⟦message⟧", "⟦end⟧"
STARTS = (*(f"⟦{role}⟧" for role in ROLES), TOOLS, MESSAGE)

TEMPLATE = (
    "{%- if tools -%}{{ '" + TOOLS + "' + (tools | tojson) + '" + END + "\\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.content is string and message | length == 2 and message.role in " + repr(list(ROLES)) + " -%}"
    "{{ '⟦' + message.role + '⟧' + message.content + '" + END + "\\n' }}"
    "{%- else -%}"
    "{{ '" + MESSAGE + "' + (message | tojson) + '" + END + "\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}⟦assistant⟧{%- endif -%}"
)
"""Writes messages so that ``asked_of`` finds them again, each in a line of its own, for readers. A message with more
than a role and a text is JSON."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The content of a prompt.

    Attributes:
        text: a plain text; empty if there are messages.
        messages: messages in OpenAI's form.
        tools: schemas of tools.
    """

    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()


def message_tokenizer(*, chats: bool, continues: bool) -> PreTrainedTokenizerBase:
    """A tokenizer with a token for each byte, and for the beginning and the end of each kind of message.

    No two texts have the same ids, and ids of a prompt that lacks parts are those of the text that lacks them. So a
    session can send the text or the messages that a prompt stands for.

    Args:
        chats: the server takes messages.
        continues: the server continues texts, so that plain ones are not sent as messages.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    found: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bare,
        bos_token=TEXT,
        eos_token=END,
        additional_special_tokens=[*STARTS],
        clean_up_tokenization_spaces=False,
    )
    # A plain text begins with a mark, as with the start token of a model; what the chat template writes does not.
    found.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{TEXT} $A", special_tokens=[(TEXT, found.bos_token_id)]
    )
    found.chat_template = TEMPLATE if chats else None
    found.frames_texts = not continues  # read by the core: then a plain text needs no chat template
    return found


def asked_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Asked:
    """The text or the messages that token ids stand for.

    Raises:
        InputError: the ids end within a character, or the message that they begin with is damaged.
    """
    if ids and ids[0] == tokenizer.bos_token_id:
        return Asked(text=_decoded(tokenizer, ids[1:]))
    text = _decoded(tokenizer, ids)
    starts = {tokenizer.get_added_vocab()[mark]: mark for mark in STARTS}
    end = tokenizer.eos_token_id
    if not ids or ids[0] not in starts:
        return Asked(text=text)
    messages: list[Mapping[str, Any]] = []
    tools: tuple[Any, ...] = ()
    parts = _parts(ids, starts)
    for number, (start, content) in enumerate(parts):
        mark, closed = starts[start], end in content
        inner = _decoded(tokenizer, content[: content.index(end)] if closed else content)
        if closed and _decoded(tokenizer, content[content.index(end) + 1 :]).strip():
            raise InputError(f"There is text behind a message: {text[-60:]!r}. Pass messages as ap.Chat.")
        if mark == "⟦assistant⟧" and not inner and not closed and number == len(parts) - 1:
            continue  # the answer begins here
        if mark == TOOLS:
            tools = tuple(_json(inner))
        else:
            messages.append(_json(inner) if mark == MESSAGE else {"role": mark[1:-1], "content": inner})
    return Asked(messages=tuple(messages), tools=tools)


def _parts(ids: Sequence[int], starts: Mapping[int, str]) -> list[tuple[int, list[int]]]:
    """The ids, cut before each beginning of a message."""
    found: list[tuple[int, list[int]]] = []
    for token in ids:
        if token in starts:
            found.append((token, []))
        else:
            found[-1][1].append(token)
    return found


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
    if "\ufffd" in text and [*tokenizer(text, add_special_tokens=False)["input_ids"]] != [*ids]:
        raise InputError(
            "A feature is a part of a character, which cannot be left out of a text. Choose features such as words."
        )
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(
            f"Without some features, a message or tool is no longer JSON: {text[:60]!r}. Choose turns as features, or "
            "contents that are plain texts."
        ) from None
