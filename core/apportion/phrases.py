"""Texts, amounts of memory and durations as phrases, for messages, tables and notes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["duration", "memory", "memory_line", "one_line", "quoted", "sentence", "unique_names"]

LONGEST = 48
"""Maximum length of a shortened text, in characters, if nothing else is asked for."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text on one line, shortened.

    >>> one_line("the\\n cat sat", longest=8)
    'the cat…'
    """
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def quoted(text: str, longest: int = LONGEST) -> str:
    """A text between quotes, shortened, with what cannot be seen escaped."""
    return repr(text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…")


def sentence(note: str) -> str:
    """A note with a capital letter and a full stop. A word that may be a name or code keeps its first letter.

    >>> sentence("memory ran out; continued with 2 rows"), sentence("until=0.1 was kept."), sentence("Really?")
    ('Memory ran out; continued with 2 rows.', 'until=0.1 was kept.', 'Really?')
    """
    text = note.strip()
    if re.match(r"[a-z]+[ ,]", text):
        text = text[0].upper() + text[1:]
    return text if re.search(r"[.!?…][\"'”’)]*$", text) else f"{text}."


def unique_names(texts: Sequence[str]) -> list[str]:
    """Unique names for texts: stripped, on one line, and numbered from the second occurrence on.

    >>> unique_names(["the", " cat", " the"])
    ['the', 'cat', 'the #2']
    """
    times: Counter[str] = Counter()
    names: dict[str, None] = {}
    for text in texts:
        plain = name = " ".join(text.split()) or text
        while name in names:
            times[plain] += 1
            name = f"{plain} #{times[plain] + 1}"
        names[name] = None
    return list(names)


def memory(count: int) -> str:
    """An amount of memory, given in bytes: ``513 MiB``, ``1.2 GiB``."""
    return f"{count / 2**30:.2g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def duration(seconds: float) -> str:
    """A duration, given in seconds: ``0.21 s``, ``3.5 min``, ``12 h``."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.2g} h" if seconds < 100 * 3600 else f"{seconds / 86400:.2g} days"


def memory_line(weights: int | None, batch: int | None, what: str) -> list[tuple[str, str]]:
    """A line on memory, as far as it is known; none if nothing is.

    Args:
        weights: bytes of the model's weights; ``None`` if unknown.
        batch: upper estimate of the bytes of a batch; ``None`` if unknown.
        what: names the batch.
    """
    parts = [] if weights is None else [f"{memory(weights)} weights"]
    if batch is not None:
        parts.append(f"{memory(batch)} for {what}, at most")
    return [("memory", " + ".join(parts))] if parts else []
