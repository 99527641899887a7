"""A prompt that is split into pieces."""

from __future__ import annotations

from dataclasses import dataclass

from apportion.errors import InputError, shown
from apportion.prompts.common import TEXT_FEATURES, Keep, Splitter, check_by, check_keep

__all__ = ["Text"]


@dataclass(frozen=True)
class Text:
    """A prompt split into tokens, words, sentences, lines, paragraphs, or custom pieces.

    With all features present, the text is exactly the given one. An absent feature is removed together with the white
    space before it, or replaced by ``baseline``. If the beginning is removed, the first remaining piece follows the
    leading white space of the text (usually none) instead of the white space before it.

    Args:
        text: the prompt.
        by: ``"words"`` (default; scripts without spaces are split into characters), ``"tokens"`` (of the model's
            tokenizer), ``"sentences"`` (a line break ends one), ``"lines"``, ``"paragraphs"``, or a function from the
            text to its pieces, such as a word segmenter; text between two pieces goes with the second.
        baseline: replacement of an absent feature: a string, or for ``by="tokens"`` also a token id. ``None`` removes
            it.
        keep: features that are always present and get no score: their texts or indices (negative ones count from the
            end), or a function from a feature's text to ``True`` or ``False``.

    Raises:
        InputError: the text is blank, ``by`` is unknown, or a token id is given for other pieces.
    """

    text: str
    by: str | Splitter = "words"
    baseline: str | int | None = None
    keep: Keep = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputError(f"Text takes a str, not {type(self.text).__name__}: {shown(self.text)}.")
        if not self.text.strip():
            raise InputError(f"The prompt must not be empty; it is {shown(self.text)}.")
        check_by(self.by, TEXT_FEATURES)
        if isinstance(self.baseline, bool) or not isinstance(self.baseline, str | int | None):
            raise InputError(f"baseline={shown(self.baseline)} must be a string, a token id or None.")
        if isinstance(self.baseline, int) and self.by != "tokens":
            raise InputError(
                f"baseline={shown(self.baseline)} is a token id, which requires by='tokens' (by={shown(self.by)}). "
                "Pass a string, or None to remove absent features."
            )
        check_keep(self.keep)
