"""Readable labels for features and tokens: invisible characters are made visible, long text is shortened."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import regex
from rich.cells import cell_len

from apportion.protocols.features import Feature

__all__ = [
    "SHORT_COLUMNS",
    "between_words",
    "cut",
    "ellipsis",
    "feature_label",
    "has_right_to_left",
    "is_right_to_left",
    "isolated",
    "one_line",
    "prose",
    "quotable",
    "runs",
    "short_label",
    "text_is_name",
    "token_labels",
]

EMPTY = "(empty)"
_MARKS = ("Ġ", "▁")
_NAMED = str.maketrans({"\n": "⏎", "\t": "⇥"})
# Control characters, surrogates, and characters that hide or reorder others; emoji and Persian need joiners.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
# Scripts that put no spaces between words.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_RIGHT_TO_LEFT = ("R", "AL")
_REGION = re.compile(r"picture \d+, (.+)", re.DOTALL)
_DANGLING = " ([{“‘«"
_ISOLATES = re.compile("[\u2068\u2069]")

SHORT_COLUMNS = 24


def one_line(text: str) -> str:
    """Label text: outer spaces dropped, line breaks and control characters visible, ``␣`` for blank text.

    >>> one_line(" golf"), one_line("  "), one_line("a\\tb\\n"), one_line("")
    ('golf', '␣␣', 'a⇥b⏎', '(empty)')
    """
    if not text:
        return EMPTY
    shown = _visible(text).strip()
    return shown or "␣" * len(text)


def quotable(text: str) -> str:
    """A target on one line, with its leading space, which is part of what is scored.

    >>> quotable(" golf"), quotable("golf")
    (' golf', 'golf')
    """
    shown = one_line(text)
    return f" {shown}" if text.startswith(" ") and text.strip() else shown


def prose(text: str) -> str:
    """Running text with visible control characters; line breaks and tabs are kept."""
    text = text.replace("\r\n", "\n")
    return "".join(part if part in ("\n", "\t") else _visible(part) for part in re.split(r"([\n\t])", text))


def ellipsis(text: str, width: int) -> str:
    """The text in at most ``width`` columns, with ``…`` in place of its middle if it is longer.

    The end is kept because it distinguishes numbered names (``the #2``). Words stay whole, unless one is so long that
    little else would be left.
    """
    if cell_len(text) <= width:
        return text
    if text.endswith("…"):
        return cut(text, width)
    characters = regex.findall(r"\X", text)
    tail = _taken(characters[::-1], (width - 1) // 3)
    if any(character.isspace() for character in characters):
        tail = _whole_words(tail, characters[::-1], least=0)
    if not any(character[:1].isalnum() for character in tail):
        tail = []
    room = width - 1 - sum(map(cell_len, tail))
    # A text that is shortened again has one ellipsis, too.
    return _before_gap(_head(characters, room)) + "…" + "".join(tail[::-1]).rpartition("…")[2].lstrip()


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns, with ``…`` in place of its end if it is longer; words as in `ellipsis`."""
    if cell_len(text) <= width:
        return text
    return _before_gap(_head(regex.findall(r"\X", text), width - 1)) + "…"


def _before_gap(text: str) -> str:
    """The text that is left before an ellipsis, without punctuation that would run into it."""
    return text.partition("…")[0].rstrip(f"{_DANGLING}.,;:") or text.rstrip(f"{_DANGLING}…")


def between_words(before: str = "", after: str = "") -> bool:
    """True if no word goes on from one character to the next; scripts without spaces may break anywhere."""
    return not (_is_inner(before) and _is_inner(after)) or bool(_UNSPACED.search(before + after))


def _is_inner(character: str) -> bool:
    return character[:1].isalnum() or character in ("'", "’", "_")


def token_labels(tokens: Sequence[str]) -> list[str]:
    """A label for each target token, without the space markers of tokenizers."""
    # Ġ is also a Maltese letter: it counts as a marker only if no token starts with a space.
    marks = [m for m in _MARKS if any(t.startswith(m) for t in tokens) and not any(t[:1] == " " for t in tokens)]
    for mark in marks:
        tokens = [token.replace(mark, " ") for token in tokens]
    return [one_line(token) for token in tokens]


def text_is_name(feature: Feature) -> bool:
    """True if the name is the text, as for words: ``cat``, or ``the #2``, or ``→ cat`` for a token of the target.

    For regions of several pictures as well: ``picture 2, row 1`` is ``row 1 of cat.png``.
    """
    name, text = re.sub(r" #\d+$", "", feature.name).strip(), feature.text.strip()
    region = _REGION.fullmatch(name)
    return feature.generated is not None or name == text or (region is not None and text.startswith(f"{region[1]} of "))


def feature_label(feature: Feature) -> str:
    """Name and text on one line, or the name alone if it is the text."""
    name = one_line(feature.name)
    return name if text_is_name(feature) else f"{name}: {one_line(feature.text)}"


def short_label(feature: Feature) -> str:
    """The shortened name alone, for columns whose rows show the full label."""
    return ellipsis(one_line(feature.name), SHORT_COLUMNS)


def has_right_to_left(text: str) -> bool:
    """True if the text contains Arabic, Hebrew or another right-to-left script."""
    return any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in text)


def is_right_to_left(text: str) -> bool:
    """True if the text begins, spaces and punctuation aside, in a right-to-left script."""
    strong = (unicodedata.bidirectional(c) for c in text)
    return next((kind for kind in strong if kind == "L" or kind in _RIGHT_TO_LEFT), "L") != "L"


def isolated(text: str) -> str:
    """The text between marks that isolate its direction from the surrounding text."""
    return f"\u2068{text}\u2069"


def runs(text: str) -> list[str]:
    """The parts of a line whose directions `isolated` keeps apart; figures draw them one by one, without the marks."""
    parts = [part for part in _ISOLATES.split(text) if part]
    return parts if has_right_to_left(text) else ["".join(parts)]


def _visible(text: str) -> str:
    named = text.replace("\r\n", "\n").translate(_NAMED)
    return _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", named)


def _head(characters: Sequence[str], width: int) -> str:
    taken = _taken(characters, width)
    return "".join(_whole_words(taken, characters, least=len(taken) / 2))


def _whole_words(taken: list[str], characters: Sequence[str], least: float) -> list[str]:
    """The first characters without the part of a word at their end, if at least ``least`` of them are left."""
    if not taken or between_words(*characters[len(taken) - 1 : len(taken) + 1]):
        return taken
    end = max((i for i in range(1, len(taken)) if between_words(taken[i - 1], taken[i])), default=0)
    return taken[:end] if end >= least else taken


def _taken(characters: Iterable[str], width: int) -> list[str]:
    """The leading characters that fit into ``width`` columns."""
    taken: list[str] = []
    for character in characters:
        width -= cell_len(character)
        if width < 0:
            break
        taken.append(character)
    return taken
