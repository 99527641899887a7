"""Control tokens in the texts of users, such as the markup of a chat template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import regex

from apportion.errors import InputError, listing
from apportion.prompts.text import Text
from apportion_plugins.inputs.naming import kept_indices
from apportion_plugins.inputs.pieces import cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["around_control_tokens", "check_control_tokens", "control_tokens_in"]


def check_control_tokens(tokenizer: PreTrainedTokenizerBase, contents: object, *, allowed: bool) -> tuple[str, ...]:
    """Look for special tokens in texts, which may be nested in dicts and lists.

    Returns:
        A note on the special tokens found, if they are allowed.

    Raises:
        InputError: special tokens were found and are not allowed.
    """
    found = control_tokens_in(tokenizer, contents)
    if not found:
        return ()
    if allowed:
        return (f"contents contain control tokens, which are read as such: {listing(found)}",)
    raise InputError(
        f"The contents contain {listing(map(repr, found))}, which the tokenizer reads as control tokens: the model "
        "would take them for message markup rather than text. Remove or rephrase them, or pass "
        "allow_control_tokens=True to have them read as control tokens."
    )


def control_tokens_in(tokenizer: PreTrainedTokenizerBase, contents: object) -> list[str]:
    """The special tokens in texts, which may be nested in dicts and lists."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    texts = list(_texts(contents))
    return sorted(token for token in special if token and any(token in text for text in texts))


def around_control_tokens(prompt: Text, tokenizer: PreTrainedTokenizerBase, placeholder: str) -> Text | None:
    """A text whose control tokens are always present, each run of them in a piece of its own.

    Args:
        prompt: the text. Positions in its ``keep`` count these pieces, too.
        tokenizer: knows the control tokens.
        placeholder: the text that stands for a picture, which may not be a token; empty if there is none.

    Returns:
        The text, or ``None`` if nothing of it can be absent.
    """
    text = prompt.text
    marks = [*control_tokens_in(tokenizer, text), *([placeholder] if placeholder and placeholder in text else [])]
    if not marks:
        return prompt
    alternatives = "|".join(regex.escape(mark) for mark in sorted(marks, key=len, reverse=True))
    # Every second part is a run of control tokens.
    parts = regex.split(rf"((?:{alternatives})+)", text)
    pieces: list[str] = []
    kept: set[int] = set()
    for i, part in enumerate(parts):
        if i % 2:
            kept.add(len(pieces))
            pieces.append(part)
        elif part.strip():
            pieces += cut(part, prompt.by).pieces
    kept |= kept_indices(prompt.keep, pieces)
    return replace(prompt, by=lambda _: pieces, keep=sorted(kept)) if len(kept) < len(pieces) else None


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
