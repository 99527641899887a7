"""Location of units in a prompt that a third-party template renders.

Units are wrapped in Unicode noncharacters, the prompt is rendered with them, and the marks are removed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from apportion.protocols.features import Segment

__all__ = ["Span", "json_spans", "marked", "marked_spans", "segments", "unmarked"]

OPEN, NUMBERED, CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
MARK = re.compile(f"{OPEN}(\\d+){NUMBERED}|{CLOSE}")

Span = tuple[int, int, int]
"""Start and end (exclusive) in the prompt, and the unit there."""


def marked(text: str, unit: int) -> str:
    """Wrap a unit in marks. Surrounding white space stays outside, where templates may strip it."""
    core = text.strip()
    if not core:
        return text
    before, after = text.split(core, 1)
    return f"{before}{OPEN}{unit}{NUMBERED}{core}{CLOSE}{after}"


def unmarked(text: str, plain: str, units: Sequence[str]) -> list[Span]:
    """Spans of units in ``plain``, from the same prompt with marks.

    Args:
        text: the prompt with marks.
        plain: the prompt without marks. If the template rendered marked contents differently, the units are searched
            for in ``plain`` instead.
        units: texts of the units.
    """
    found = marked_spans(text, plain)
    return _in_order(plain, units) if found is None else found


def marked_spans(text: str, plain: str) -> list[Span] | None:
    """Spans of units in ``plain``, from the same prompt with marks; ``None`` if it differs in more than its marks."""
    spans: list[Span] = []
    shift = start = 0
    unit: int | None = None
    for mark in MARK.finditer(text):
        here = mark.start() - shift
        if unit is not None and here > start:
            spans.append((start, here, unit))
        unit = None if mark[1] is None else int(mark[1])
        shift, start = shift + len(mark[0]), here
    return spans if MARK.sub("", text) == plain else None


def json_spans(plain: str, wanted: Mapping[int, Sequence[object]]) -> list[Span]:
    """Spans of the JSON values of each unit in a prompt, however they are formatted."""
    unit_of: dict[Hashable, int] = {}
    for owner, values in wanted.items():
        for value in values:
            unit_of.setdefault(_comparable(value), owner)
    if not unit_of:
        return []
    decoder = json.JSONDecoder()
    spans: list[Span] = []
    at = plain.find("{")
    while at >= 0:
        unit: int | None = None
        try:
            value, end = decoder.raw_decode(plain, at)
            unit = unit_of.get(_comparable(value))
        except (ValueError, RecursionError):
            end = at + 1
        if unit is not None:
            spans.append((at, end, unit))
        at = plain.find("{", end if unit is not None else at + 1)
    return spans


def _comparable(value: object) -> Hashable:
    """A key that is equal for equal JSON values."""
    if isinstance(value, Mapping):
        return frozenset((key, _comparable(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_comparable, value))
    return value if isinstance(value, Hashable) else id(value)


def segments(plain: str, spans: Iterable[Span], feature_of: Sequence[int | None]) -> tuple[Segment, ...]:
    """The whole prompt as segments in order, each with its feature."""
    found: list[Segment] = []
    end = 0
    for start, stop, unit in sorted(spans):
        if start < end or feature_of[unit] is None:
            continue
        found += [Segment(plain[end:start]), Segment(plain[start:stop], feature_of[unit])]
        end = stop
    found.append(Segment(plain[end:]))
    return tuple(segment for segment in found if segment.text)


def _in_order(plain: str, units: Sequence[str]) -> list[Span]:
    spans: list[Span] = []
    end = 0
    for unit, text in enumerate(units):
        start = plain.find(text.strip(), end)
        if text.strip() and start >= 0:
            end = start + len(text.strip())
            spans.append((start, end, unit))
    return spans
