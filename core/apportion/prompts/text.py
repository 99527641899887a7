"""A prompt that is cut into pieces."""

from __future__ import annotations

from dataclasses import dataclass

from apportion.errors import InputError
from apportion.prompts.common import GRANULARITIES, Keep, Splitter, check_by, check_keep

__all__ = ["Text"]


@dataclass(frozen=True)
class Text:
    """A prompt cut into tokens, words, sentences, paragraphs, or pieces of your own.

    With all features present the text is exactly the one given. An absent feature is removed with the
    white space before it, or replaced by ``baseline``; when the beginning is removed, what begins the prompt
    then follows the white space with which the text begins (mostly none) instead of its own.

    Args:
        text: the prompt.
        by: ``"words"`` (default; scripts without spaces are cut into characters), ``"tokens"`` (of the
            model's tokenizer), ``"sentences"``, ``"paragraphs"``, or a function from the text to its
            pieces, such as a word segmenter; what lies between the pieces goes with the next one.
        baseline: what replaces an absent feature: a text, or for ``by="tokens"`` also a token id.
            ``None`` removes it.
        keep: features that are always present and get no score: their texts or indices (negative ones
            count from the end), or a function that says so of a feature's text.

    Raises:
        InputError: the text is blank, ``by`` is unknown, or a token id is given for other pieces.
    """

    text: str
    by: str | Splitter = "words"
    baseline: str | int | None = None
    keep: Keep = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputError(f"Text takes a str, not {type(self.text).__name__}: {self.text!r}.")
        if not self.text.strip():
            raise InputError(f"The prompt is empty ({self.text!r}); there is nothing to attribute to.")
        check_by(self.by, GRANULARITIES)
        if isinstance(self.baseline, bool) or not isinstance(self.baseline, str | int | None):
            raise InputError(f"baseline={self.baseline!r} is not a text, a token id or None.")
        if isinstance(self.baseline, int) and self.by != "tokens":
            raise InputError(
                f"baseline={self.baseline} is a token id, which fits by='tokens' only (by={self.by!r}). "
                "Pass a text, or None to remove absent features."
            )
        check_keep(self.keep)
