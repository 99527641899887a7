"""The other spelling of a text that continues a prompt: with one space between them where there is none, or are two.

A text in the wrong place by one space is silently another text: ``isParis`` is not ``is Paris``. Whether the space was
meant cannot be seen in the text (``Par`` and ``is`` is right without one, as are most languages without spaces). So the
two spellings are compared by their scores, and only if their tokens differ.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace

from apportion.protocols.row import ModelInput
from apportion.rendering.continuation import continuation
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.token_texts import control_ids

__all__ = ["Spelling", "other_spelling"]

OPENING = ("Ps", "Pi")
"""Unicode categories of opening brackets and quotation marks."""
QUOTES = "\"'`"
"""Quotation marks that open after white space and close after anything else."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """A text as it was given, and as it may have been meant.

    Attributes:
        given: the text as it was given.
        given_ids: its tokens.
        given_prompt: the prompt that it follows, with all features.
        meant: the text with one space less or more.
        meant_ids: its tokens.
        meant_prompt: the prompt that it follows; without the spaces at its end, if they were moved into the text.
    """

    given: str
    given_ids: tuple[int, ...]
    given_prompt: ModelInput
    meant: str
    meant_ids: tuple[int, ...]
    meant_prompt: ModelInput

    @property
    def moved(self) -> bool:
        """True if the prompt's last spaces were moved into the text."""
        return self.meant_prompt != self.given_prompt


def other_spelling(full: FullPrompt, text: str, ids: tuple[int, ...]) -> Spelling | None:
    """The other spelling of a text after a prompt; ``None`` if there is none, or if it has the same tokens.

    Args:
        full: the prompt, which the text continues.
        text: the text.
        ids: the tokens with which it continues the prompt.
    """
    known = full.text
    if known is None:
        return None
    after_control = full.input.ids[-1] in control_ids(full.context.tokenizer)
    found = _respaced(known.text, text, after_control)
    if found is None:
        return None
    before, meant = found
    prompt = full
    if before != known.text:
        if full.input.media:  # its placeholders are not text
            return None
        (shorter,) = full.context.encode([before], special_tokens=known.special_tokens)
        prompt = FullPrompt(ModelInput(shorter), replace(known, text=before), full.context)
    meant_ids = continuation(prompt, "target", meant).ids
    if not prompt.input.ids or not meant_ids or prompt.input.ids + meant_ids == full.input.ids + ids:
        return None
    return Spelling(text, ids, full.input, meant, meant_ids, prompt.input)


def _respaced(prompt: str, text: str, after_control: bool) -> tuple[str, str] | None:
    """Prompt and text with the usual space between them; ``None`` if they have it.

    Args:
        prompt: the text of the prompt.
        text: the text that follows.
        after_control: the prompt ends with a control token, as some chat templates do.
    """
    before, body = prompt.rstrip(" "), text.lstrip(" ")
    if not before or not body or body[0].isspace():
        return None
    if after_control and before == prompt:
        # Some models begin their answers with a space, and others do not.
        return prompt, body if body != text else f" {body}"
    if before[-1].isspace():
        if before != prompt or text.startswith("  "):  # the spaces are an indentation
            return None
        usual = prompt, body
    else:
        usual = before, body if _opens(before) else f" {body}"
    return None if usual == (prompt, text) else usual


def _opens(text: str) -> bool:
    """True if a text ends with an opening bracket or quotation mark."""
    last, second = text[-1], text[-2:-1]
    if last in QUOTES:
        return not second or second.isspace() or unicodedata.category(second) in OPENING
    return unicodedata.category(last) in OPENING
