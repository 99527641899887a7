"""Splitting of a text into pieces that reassemble to exactly the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import regex
import sentencex

from apportion.errors import InputError
from apportion.functions import failures_of, wrong_answer
from apportion_plugins.inputs.naming import short

__all__ = ["Pieces", "cut"]

# Scripts without spaces between words: each character (with its combining marks) is one piece.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
KATAKANA = r"[\p{Katakana}\u30FC]"
# Punctuation belongs to the word before it; opening punctuation to the word after it.
OPENING = r"[\p{Ps}\p{Pi}]*+"
TRAILING = r"[\p{P}--[\p{Ps}\p{Pi}]]*+"
WORD = regex.compile(
    rf"{OPENING}(?:(?={UNSPACED})\X|{KATAKANA}++|(?:(?!{UNSPACED}|{KATAKANA})\S)++){TRAILING}|[\p{{Ps}}\p{{Pi}}]++",
    regex.V1,
)
WHITE_SPACE = regex.compile(r"\s+", regex.V1)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text split into pieces.

    Attributes:
        gaps: text before each piece (usually white space).
        pieces: the pieces themselves.
        tail: text after the last piece.
    """

    gaps: tuple[str, ...]
    pieces: tuple[str, ...]
    tail: str

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each piece in the text."""
        found: list[tuple[int, int]] = []
        end = 0
        for gap, piece in zip(self.gaps, self.pieces, strict=True):
            start = end + len(gap)
            end = start + len(piece)
            found.append((start, end))
        return found

    def join(self, present: Sequence[bool], baseline: str | None) -> str:
        """The text with some pieces absent: either removed with the gap before them, or replaced by ``baseline``.

        If the first pieces are removed, the white space between pieces is not left at the start.
        """
        parts: list[str] = []
        for gap, piece, here in zip(self.gaps, self.pieces, present, strict=True):
            if here or baseline is not None:
                shown = piece if here else baseline or ""
                parts.append(gap + shown if parts else (self.gaps[0] or gap.lstrip()) + shown)
        return "".join(parts) + self.tail


def cut(text: str, by: str | Callable[[str], Sequence[str]]) -> Pieces:
    """Split a text by unit name or with a user's function.

    Raises:
        InputError: there are no pieces, or the function's pieces do not occur in the text in this order.
    """
    if callable(by):
        return _located(text, _called(by, text))
    cutters: dict[str, Callable[[str], Sequence[str]]] = {
        "words": WORD.findall,
        "sentences": _sentences,
        "lines": str.splitlines,
        "paragraphs": _paragraphs,
    }
    stripped = (piece.strip() for piece in cutters[by](text))
    return _located(text, [piece for piece in stripped if piece])


def _paragraphs(text: str) -> list[str]:
    """Parts between white space with a blank line."""
    found: list[str] = []
    start = 0
    for space in WHITE_SPACE.finditer(text):
        if space[0].count("\n") > 1 or space.end() == len(text) or not space.start():
            found.append(text[start : space.start()])
            start = space.end()
    return [*found, text[start:]]


def _sentences(text: str) -> list[str]:
    """Sentences, each within a line: headings, list items and labels often end without a full stop."""
    return [sentence for line in text.splitlines() for sentence in sentencex.segment("en", line)]


def _called(by: Callable[[str], Sequence[str]], text: str) -> list[str]:
    with failures_of(by, "by", lambda: f"the text {short(text)!r}"):
        found = by(text)
        # A generator fails only here.
        pieces = list(found) if isinstance(found, Iterable) and not isinstance(found, str) else None
    if pieces is None:
        raise wrong_answer(by, "by", "a list of strings", found)
    wrong = [piece for piece in pieces if not isinstance(piece, str)]
    if wrong:
        raise wrong_answer(by, "by", "strings", wrong[0])
    return [piece for piece in pieces if piece]


def _located(text: str, pieces: Sequence[str]) -> Pieces:
    """Find each piece in the text; the text between two pieces is the gap before the second."""
    if not pieces:
        raise InputError("The text has no pieces, so there is nothing to attribute to.")
    gaps: list[str] = []
    end = 0
    for piece in pieces:
        start = text.find(piece, end)
        if start < 0:
            raise InputError(
                f"The piece {piece!r} does not occur in the text after {text[:end][-30:]!r}; pieces must be parts "
                "of the text, in order and without overlap."
            )
        gaps.append(text[end:start])
        end = start + len(piece)
    return Pieces(tuple(gaps), tuple(pieces), text[end:])
