"""The text of a prompt that an adapter rendered to token ids, and what its special tokens mean for the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from apportion.protocols.inputs import InputAdapter
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext, PromptText

__all__ = ["FullPrompt", "notes_on_special_tokens", "text_of_prompt"]


@dataclass(frozen=True, slots=True)
class FullPrompt:
    """The prompt with all features present, which a target continues.

    Attributes:
        input: the input that the model reads.
        text: its text, if it is known.
        context: the context in which it was encoded.
    """

    input: ModelInput
    text: PromptText | None
    context: AdaptContext


def text_of_prompt(context: AdaptContext, adapter: InputAdapter, ids: tuple[int, ...]) -> PromptText | None:
    """The text that has exactly these tokens; ``None`` if none is known.

    It is the text that the adapter gave to the context to encode, else that of its segments, or what the ids decode to;
    the latter two only if they have these tokens.

    Args:
        context: the context in which the adapter split the prompt.
        adapter: the prompt's adapter.
        ids: the prompt with all features.
    """
    known = context.text_of(ids)
    if known is not None or not ids:
        return known
    for text in _candidates(context, adapter, ids):
        for special in (False, True):
            if context.encode([text], special_tokens=special) == [ids]:
                return PromptText(text, special)
    return None


def _candidates(context: AdaptContext, adapter: InputAdapter, ids: tuple[int, ...]) -> Iterator[str]:
    shown = "".join(segment.text for segment in getattr(adapter, "segments", ()))
    if shown:
        yield shown
    # Some tokenizers set special tokens apart with spaces, which then are part of the text; so without them first.
    start = len(context.before) if ids[: len(context.before)] == context.before else 0
    for part in dict.fromkeys((ids[start:], ids)):
        yield str(context.tokenizer.decode(list(part), clean_up_tokenization_spaces=False))


def notes_on_special_tokens(context: AdaptContext, ids: tuple[int, ...], known: PromptText | None) -> tuple[str, ...]:
    """Notes for the result on special tokens around the prompt that the model may not expect.

    Args:
        context: the context in which the prompt was encoded.
        ids: the prompt with all features.
        known: its text, if it is known.
    """
    before, omitted = context.before, context.omitted
    notes: list[str] = []
    if omitted and known is not None and known.special_tokens:
        notes.append(
            f"the tokenizer appends {_named(context, omitted)} to every text; prompts are read without it, so that the "
            "target continues them"
        )
    elif omitted and ids[-len(omitted) :] == omitted:
        notes.append(f"the prompt ends with {_named(context, omitted)}, and the target is scored after it")
    if before and ids[: len(before) + 1] == (*before, before[0]):
        notes.append(
            f"the prompt begins with {_named(context, before[:1])} twice: the tokenizer adds it to a text that already "
            "has it"
        )
    return tuple(notes)


def _named(context: AdaptContext, ids: tuple[int, ...]) -> str:
    return " ".join(map(str, context.tokenizer.convert_ids_to_tokens(list(ids))))
