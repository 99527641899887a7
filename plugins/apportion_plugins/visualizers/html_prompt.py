"""The coloured prompt of the HTML view, with names and values next to its features."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from apportion.protocols.features import Segment
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import (
    SHORT_COLUMNS,
    between_words,
    ellipsis,
    one_line,
    prose,
    short_label,
    text_is_name,
)
from apportion_plugins.visualizers.numbers import Numbers, half_widths
from apportion_plugins.visualizers.own_target import target_segments
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.selection import largest

__all__ = ["coloured_prompt", "tip"]

MOST_MARKED, STRONGEST = 40, 20
"""Prompts of more features have marks at the strongest only."""


def coloured_prompt(attribution: Attribution) -> str:
    """The prompt; all segments of a feature have its colour, and its value next to them. Empty without segments.

    If the target's tokens are features, it follows in a block of its own.

    They are not isolated from each other, because that would break up words with joined letters. For the same reason
    there is no mark in the middle of a word; the table has all values.
    """
    return "".join(_block(attribution, part) for part in (attribution.segments, target_segments(attribution)))


def _block(attribution: Attribution, segments: Sequence[Segment]) -> str:
    """A paragraph of coloured text; empty without segments."""
    strength = strengths(np.asarray(attribution.values))
    marked = _marked(attribution)
    pieces = []
    for i, segment in enumerate(segments):
        text = prose(segment.text)
        if segment.feature is None:
            pieces.append(f'<span class="apn-kept">{escape(text)}</span>')
            continue
        body = text.rstrip()
        after = text[len(body) :] or "".join(next_one.text[:1] for next_one in segments[i + 1 : i + 2])
        marks = segment.feature in marked and between_words(body[-1:], after[:1])
        mark = _mark(attribution, segment.feature) if marks else ""
        # A line break that is (part of) a feature must be visible.
        inner = f"{_shown(body)}{mark}{_shown(text[len(body) :])}"
        kind = colour_class(float(strength[segment.feature]), signed=attribution.signed)
        said = tip(attribution, segment.feature)
        pieces.append(f'<span class="{kind}" title="{said}">{inner}</span>')
    return f'<div class="apn-prompt" dir="auto" lang="">{"".join(pieces)}</div>' if segments else ""


def _marked(attribution: Attribution) -> set[int]:
    n = len(attribution.features)
    return set(largest(np.asarray(attribution.values), n if n <= MOST_MARKED else STRONGEST))


def _shown(text: str) -> str:
    return escape(text.replace("\n", "⏎\n"))


def _mark(attribution: Attribution, i: int) -> str:
    """The value, after the name if it is not the text itself; copies of the prompt leave it out."""
    numbers = Numbers(attribution.values, signed=attribution.signed)
    feature, value = attribution.features[i], numbers.signed(attribution.values[i])
    name = "" if text_is_name(feature) else f"{escape(short_label(feature))} "
    return f'<small class="apn-mark"><bdi>{name}{value}</bdi></small>'


def tip(attribution: Attribution, i: int, columns: int = SHORT_COLUMNS) -> str:
    """Name and value of a feature, escaped; names of more columns are shortened."""
    half, numbers = half_widths(attribution), Numbers(attribution.values, signed=attribution.signed)
    error = "" if half is None else f" ± {numbers.plain(half[i])}"
    text = f"{numbers.signed(attribution.values[i])}{error} {attribution.unit}"
    return escape(f"{ellipsis(one_line(attribution.features[i].name), columns)}: {text}")
