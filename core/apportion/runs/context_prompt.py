"""A prompt whose features are pieces of its context, made of two texts and a template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, shown
from apportion.prompts.template import placeholders
from apportion.prompts.text import Text
from apportion.protocols.backend import Session
from apportion.protocols.features import Segment
from apportion.protocols.inputs import InputAdapter
from apportion.rendering.context import AdaptContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apportion.runs.resolver import Resolver

__all__ = ["TEMPLATE", "ContextOf"]

TEMPLATE, INPUT_ALONE = "{context} {input}", "{input}"
CONTEXT, INPUT, TOKENS = "context", "input", "tokens"


@dataclass(frozen=True, slots=True)
class ContextOf:
    """The prompt and its context, as given.

    Attributes:
        prompt: the input, if there is a context; or a prompt whose features are the context.
        context: the context, as a text; ``None`` if the prompt holds it.
        template: how input and context make up the prompt.
        contextless: text of the prompt without the context; ``None`` for the default.
        features: what a context in a text is cut into, as ``by`` of ``Text``; ``None`` for words.
    """

    prompt: object
    context: object = None
    template: object = TEMPLATE
    contextless: object = None
    features: object = None

    @property
    def apart(self) -> bool:
        """True if the context is given apart from the input."""
        return self.context is not None or isinstance(self.prompt, str)

    def without(self) -> str | None:
        """Text of the prompt without its context; ``None`` for the prompt without any features.

        Raises:
            InputError: ``contextless`` is not a text, or has other placeholders than the input.
        """
        template = INPUT_ALONE if self.contextless is None and self.apart else self.contextless
        if template is None:
            return None
        if not isinstance(template, str):
            raise InputError(f"contextless={shown(template)} must be the text of the prompt without its context.")
        if not self.apart:
            return template
        _check_placeholders("contextless", template, allowed=(INPUT,), needed=())
        return template.format(input=self.prompt)

    def arguments(self, resolver: Resolver, session: Session) -> dict[str, object]:
        """The prompt, and the features that it is cut into, as arguments of ``attribute``.

        Args:
            resolver: finds the adapter, which cuts the text.
            session: session with the tokenizer.

        Raises:
            InputError: a text is not a text or is blank, or the template lacks a placeholder.
        """
        if not self.apart:
            return {"prompt": self.prompt, "features": self.features}
        return {"prompt": self._in_context(resolver, session)}

    def _in_context(self, resolver: Resolver, session: Session) -> Text:
        """The prompt with its context, which is cut into features; everything else is always present."""
        text, context = self.prompt, self.context
        for name, given in ((INPUT, text), (CONTEXT, context)):
            if not isinstance(given, str) or not given.strip():
                hint = ""
                if name == INPUT and not isinstance(given, str):
                    hint = " A prompt of another type holds its own context, its features; leave context= out."
                raise InputError(f"The {name} must be a text and must not be blank; it is {shown(given)}.{hint}")
        assert isinstance(text, str) and isinstance(context, str)
        by: Any = "words" if self.features is None else self.features
        before, after = _around(self.template, text)
        whole, alone = Text(f"{before}{context}{after}", by=by), Text(context, by=by)
        encoding = AdaptContext.of_session(session, make=None)
        adapter = resolver.adapter(whole, None, encoding)
        inside = _features_within(adapter, whole.text, session.tokenizer, len(before), len(before) + len(context))
        if by != TOKENS:
            pieces = [feature.text for feature in resolver.adapter(alone, None, encoding).features]
            if [adapter.features[i].text for i in sorted(inside)] != pieces:
                return _cut_apart(whole.text, before.strip(), pieces, after.strip())
        if not inside:
            raise InputError(f"The context {shown(context)} has no tokens of its own in this prompt; add white space.")
        return replace(whole, keep=[unit for feature, unit in _units(adapter) if feature not in inside])


def _cut_apart(text: str, before: str, pieces: Sequence[str], after: str) -> Text:
    """The prompt with the pieces of its context, where one of them, such as a sentence, would go on beyond it."""
    head, tail = ([part] if part else [] for part in (before, after))
    parts = [*head, *pieces, *tail]
    return Text(text, by=lambda _: parts, keep=[*range(len(head)), *range(len(parts) - len(tail), len(parts))])


def _around(template: object, text: str) -> tuple[str, str]:
    """The text before and after the context."""
    if not isinstance(template, str):
        raise InputError(f"template={shown(template)} must be a format string, such as {TEMPLATE!r}.")
    _check_placeholders("template", template, allowed=(CONTEXT, INPUT), needed=(CONTEXT, INPUT))
    before, after = _split(template)
    return before.format(input=text), after.format(input=text)


def _split(template: str) -> tuple[str, str]:
    before, found, after = template.partition("{context}")
    if not found or "{context}" in after:
        raise InputError(f"template={template!r:.80} must contain {{context}} exactly once.")
    return before, after


def _check_placeholders(name: str, template: str, *, allowed: tuple[str, ...], needed: tuple[str, ...]) -> None:
    found = placeholders(template)
    for slot in found:
        if slot not in allowed:
            known = " and ".join(f"{{{one}}}" for one in allowed)
            raise InputError(f"{name}={template!r:.80} has an unknown placeholder {{{slot}}}; it may have {known}.")
    for slot in needed:
        if slot not in found:
            raise InputError(f"{name}={template!r:.80} must contain the placeholder {{{slot}}}.")


def _features_within(
    adapter: InputAdapter, text: str, tokenizer: PreTrainedTokenizerBase, start: int, stop: int
) -> set[int]:
    """The features most of whose visible text (of blank ones, all text) is between two positions of the prompt."""
    own: dict[int, list[bool]] = {}
    for feature, first, last in _spans(adapter, text, tokenizer):
        visible = [place for place in range(first, last) if not text[place : place + 1].isspace()]
        marks = [start <= place < stop for place in visible or range(first, last)]
        own.setdefault(feature, []).extend(marks)
    return {feature for feature, marks in own.items() if 2 * sum(marks) > len(marks)}


def _spans(adapter: InputAdapter, text: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, int, int]]:
    """Feature, start and end of each span of the prompt."""
    stated = getattr(adapter, "feature_of_token", None)
    if stated is not None and tokenizer.is_fast:  # labels of tokens that share a character are not its text
        offsets = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
        yield from ((f, *span) for f, span in zip(stated, offsets, strict=False) if f is not None)
        return
    position = 0
    segments: Sequence[Segment] = getattr(adapter, "segments", ())
    for segment in segments:
        if segment.feature is not None:
            yield segment.feature, position, position + len(segment.text)
        position += len(segment.text)


def _units(adapter: InputAdapter) -> list[tuple[int, int]]:
    """Each feature, with the position by which ``keep`` knows it: tokens count special ones too."""
    stated = getattr(adapter, "feature_of_token", None)
    if stated is None:
        return [(feature, feature) for feature in range(len(adapter.features))]
    return [(feature, unit) for unit, feature in enumerate(stated) if feature is not None]
