"""A note on prompts that ask a chat model something without its chat template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from apportion.prompts.documents import Documents
from apportion.rendering.one_line import answers_take_a_line
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.token_texts import control_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["chat_hint"]

CONTENT = "\x00"


def chat_hint(prompt: object, full: FullPrompt, *, generated: bool) -> str | None:
    """A sentence for the result, if the model has a chat template that a prompt should probably use.

    It is for prompts that want an answer: the model writes the target, documents are asked about, or the prompt ends
    with a question mark. Other texts whose continuation is given are taken for what they are. So are few-shot examples,
    and texts with markup of the template, such as those that ``apply_chat_template`` has written.

    Args:
        prompt: the prompt as the user gave it.
        full: the prompt with all features.
        generated: the model writes the target.
    """
    known, tokenizer = full.text, full.context.tokenizer
    if known is None or not known.special_tokens or not getattr(tokenizer, "chat_template", None):
        return None
    if getattr(tokenizer, "frames_texts", False):  # a server sends them as messages in any case
        return None
    asked = isinstance(prompt, Documents) or known.text.rstrip().endswith(("?", "？", "؟"))
    if not (generated or asked) or answers_take_a_line(known.text):
        return None
    if any(mark in known.text for mark in _marks(tokenizer)):
        return None
    instead = "as_chat=True" if isinstance(prompt, Documents) else "ap.Chat([{'role': 'user', 'content': …}])"
    return (
        "the model has a chat template, and this prompt does not use it, so the model may continue the text instead "
        f"of answering; {instead} uses it"
    )


def _marks(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Markup that shows that a text was written in the chat template."""
    for token in control_ids(tokenizer) - {tokenizer.bos_token_id, tokenizer.unk_token_id}:
        yield str(tokenizer.convert_ids_to_tokens(token))
    try:
        message = [{"role": "user", "content": CONTENT}]
        written = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    except Exception:  # third-party templates may raise anything
        return
    before, found, after = written.partition(CONTENT)
    if found:
        # "[INST]", "USER:" or "### Response:" are not control tokens.
        yield from (lines[-1].strip() for part in (before, after) if (lines := part.strip().splitlines()))
