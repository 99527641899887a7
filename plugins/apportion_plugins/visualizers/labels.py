"""Readable text for features and tokens: what cannot be seen is made visible, what is long is shortened."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import regex
from rich.cells import cell_len

from apportion.protocols.features import Feature

__all__ = [
    "cut",
    "ellipsis",
    "feature_label",
    "has_right_to_left",
    "isolated",
    "one_line",
    "prose",
    "quotable",
    "short_label",
    "text_is_name",
    "token_labels",
]

EMPTY = "(empty)"
_MARKS = ("Ġ", "▁")
_NAMED = str.maketrans({"\n": "⏎", "\t": "⇥"})
# Controls, half characters, and what hides or reorders its neighbours; joiners, which emoji and Persian need, stay.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

SHORT_COLUMNS = 24


def one_line(text: str) -> str:
    """A label: outer spaces dropped, line breaks and control characters visible, ``␣`` where all is blank.

    >>> one_line(" golf"), one_line("  "), one_line("a\\tb\\n"), one_line("")
    ('golf', '␣␣', 'a⇥b⏎', '(empty)')
    """
    if not text:
        return EMPTY
    shown = _visible(text).strip()
    return shown or "␣" * len(text)


def quotable(text: str) -> str:
    """A target in one line; the space it begins with is part of what is scored, so it stays.

    >>> quotable(" golf"), quotable("golf")
    (' golf', 'golf')
    """
    shown = one_line(text)
    return f" {shown}" if text.startswith(" ") and text.strip() else shown


def prose(text: str) -> str:
    """Running text: line breaks and tabs stay, other control characters become visible."""
    text = text.replace("\r\n", "\n")
    return "".join(part if part in ("\n", "\t") else _visible(part) for part in re.split(r"([\n\t])", text))


def ellipsis(text: str, width: int) -> str:
    """At most ``width`` columns: the middle of a longer text gives way to ``…``.

    The end stays because it tells numbered names (``the #2``) apart.
    """
    if cell_len(text) <= width:
        return text
    characters = regex.findall(r"\X", text)
    tail = _taken(reversed(characters), (width - 1) // 3)[::-1]
    head = _taken(characters, width - 1 - sum(map(cell_len, tail)))
    return "".join(head).rstrip() + "…" + "".join(tail).lstrip()


def cut(text: str, width: int) -> str:
    """At most ``width`` columns: the end of a longer text gives way to ``…``."""
    if cell_len(text) <= width:
        return text
    return "".join(_taken(regex.findall(r"\X", text), width - 1)).rstrip(" …") + "…"


def token_labels(tokens: Sequence[str]) -> list[str]:
    """A label for each target token, without a tokenizer's space marks if they are there."""
    # Ġ is a letter of Maltese: it is a mark only where no token starts with a space.
    marks = [m for m in _MARKS if any(t.startswith(m) for t in tokens) and not any(t[:1] == " " for t in tokens)]
    for mark in marks:
        tokens = [token.replace(mark, " ") for token in tokens]
    return [one_line(token) for token in tokens]


def text_is_name(feature: Feature) -> bool:
    """Whether the name says it all, as for words: ``cat``, or ``the #2``."""
    return re.sub(r" #\d+$", "", feature.name).strip() == feature.text.strip()


def feature_label(feature: Feature) -> str:
    """Name and text on one line; the text once if it is the name."""
    name = one_line(feature.name)
    return name if text_is_name(feature) else f"{name}: {one_line(feature.text)}"


def short_label(feature: Feature) -> str:
    """The name alone, where the label beside it says the rest."""
    return ellipsis(one_line(feature.name), SHORT_COLUMNS)


def has_right_to_left(text: str) -> bool:
    """Whether some of it is Arabic, Hebrew or another script written from right to left."""
    return any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def isolated(text: str) -> str:
    """The text between marks that keep its direction from mixing with that of what surrounds it."""
    return f"\u2068{text}\u2069"


def _visible(text: str) -> str:
    named = text.replace("\r\n", "\n").translate(_NAMED)
    return _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", named)


def _taken(characters: Iterable[str], width: int) -> list[str]:
    """As many leading characters as fit."""
    taken: list[str] = []
    for character in characters:
        width -= cell_len(character)
        if width < 0:
            break
        taken.append(character)
    return taken
