"""Options of a generation, and the place where a generated text stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, listing, shown
from apportion.options import whole_number
from apportion.rendering.context import AdaptContext
from apportion.rendering.continuation import tokens_inside
from apportion.rendering.one_line import answers_take_a_line
from apportion.rendering.token_texts import added_text, token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Cut", "Generation", "cut_at", "generation_of"]

LINE_BREAK = "\n"


@dataclass(frozen=True, slots=True)
class Generation:
    """Options of the generation of a target.

    Attributes:
        options: options of the session.
        stop: texts before which the target ends.
        automatic: the user did not say where to stop, and the prompt shows that an answer takes one line.
    """

    options: Mapping[str, Any]
    stop: tuple[str, ...] = ()
    automatic: bool = False

    def why(self, cut: Cut) -> str:
        """A phrase on where the target ends, if a stop text followed."""
        where = (
            "up to the first line break, because answers in this prompt take one line each"
            if self.automatic
            else f"up to the stop text {cut.stop!r}"
        )
        if not cut.token:
            return where
        anew = listing(map(repr, cut.anew))
        return (
            f"{where}; that is inside the token {cut.token!r}, whose beginning was tokenised anew as {anew}: the model "
            "did not write it like this, and may find it unlikely"
        )

    def to_dict(self) -> dict[str, Any]:
        """All options, for the provenance."""
        return dict(self.options) | ({"stop": list(self.stop)} if self.stop else {})


def generation_of(given: object, prompt: str | None) -> Generation:
    """Check options of the generation that the user gave; ``stop`` depends on the prompt if it is not among them.

    Args:
        given: a dict of options, or ``None``.
        prompt: text of the prompt; ``None`` if it is unknown.

    Raises:
        InputError: this is not a dict of named options, ``max_new_tokens`` is not a whole number of at least 1, or
            ``stop`` is neither a text nor a list of texts.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InputError(f"generate={shown(given)} must be a dict of options, such as {{'max_new_tokens': 40}}.")
    options = {name: value for name, value in given.items() if name != "stop"}
    for name in options:
        if not isinstance(name, str):
            raise InputError(f"generate={shown(given)} must have strings as keys; {name!r:.40} is none.")
    if "max_new_tokens" in options:
        options["max_new_tokens"] = whole_number("max_new_tokens", options["max_new_tokens"], least=1)
    if "stop" not in given:
        one_line = prompt is not None and answers_take_a_line(prompt)
        return Generation(options, (LINE_BREAK,) if one_line else (), one_line)
    stop: object = given["stop"]
    listed = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(listed, Sequence) or not all(isinstance(text, str) and text for text in listed):
        raise InputError(
            f"stop={shown(stop)} must be a text such as '\\n', a list of texts, or None to go on; no text may be empty."
        )
    return Generation(options, tuple(listed))


@dataclass(frozen=True, slots=True)
class Cut:
    """A generated text up to a stop text.

    Attributes:
        ids: the tokens before it.
        stop: the stop text that was found.
        token: text of the token in which it begins, if that token begins before it; its part before the stop text was
            tokenised anew.
        anew: texts of the tokens of that part.
    """

    ids: tuple[int, ...]
    stop: str
    token: str = ""
    anew: tuple[str, ...] = ()


def cut_at(stop: Sequence[str], context: AdaptContext, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Cut | None:
    """Cut a generated text before the first stop text; ``None`` if there is none in it.

    Args:
        stop: the stop texts.
        context: the context in which the prompt was encoded.
        prompt: tokens of the prompt.
        ids: tokens that the model wrote.
    """
    texts = _texts(context.tokenizer, prompt, ids)
    found = [(start, text) for text in stop if (start := texts[-1].find(text)) >= 0]
    if not found:
        return None
    start, text = min(found)
    whole = texts[-1][:start]
    # The last border between tokens at or before the stop text; there a character of several tokens may be unfinished.
    count = max(n for n, before in enumerate(texts) if whole.startswith(before))
    rest = whole[len(texts[count]) :]
    if not rest:
        return Cut(ids[:count], text)
    following = next(n for n in range(count + 1, len(texts)) if len(texts[n]) > start)
    anew = (*ids[:count], *tokens_inside(context, rest))
    token = texts[following][len(texts[count]) :]
    return Cut(anew, text, token, token_texts(context.tokenizer, (*prompt, *anew), len(prompt) + count))


def _texts(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], ids: tuple[int, ...]) -> list[str]:
    """The text that the first 0, 1, … of the ids add to the prompt."""
    whole, start = (*prompt, *ids), len(prompt)
    return [added_text(tokenizer, whole, start, start + count) for count in range(len(ids) + 1)]
