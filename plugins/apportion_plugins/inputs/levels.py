"""Levels: coarser groupings in which the features of a prompt are nested."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from apportion.protocols.features import Level
from apportion_plugins.inputs.naming import short, unique_names
from apportion_plugins.inputs.pieces import cut

__all__ = ["Grouping", "coarser", "nested", "of_pieces", "of_starts"]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A candidate for a level: the group of each feature, and the texts of the groups."""

    name: str
    groups: Sequence[int]
    texts: Sequence[str]


def coarser(by: str | Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    """Units coarser than ``by``, coarsest first."""
    order = ("paragraphs", "lines", "sentences", "words")
    if by == "tokens":
        return order
    return order[: order.index(by)] if isinstance(by, str) else order[:-1]


def of_starts(text: str, name: str, starts: Sequence[int]) -> Grouping:
    """Group features by the piece of text in which, or before which, each starts."""
    pieces = cut(text, name)
    ends = [end for _, end in pieces.spans()]
    return Grouping(name, [min(bisect_right(ends, start), len(ends) - 1) for start in starts], pieces.pieces)


def of_pieces(
    text: str, by: str | Callable[[str], Sequence[str]], spans: Sequence[tuple[int, int]]
) -> Iterator[Grouping]:
    """Group features that are pieces of a text by the coarser pieces that contain them."""
    for name in coarser(by):
        found = of_starts(text, name, [start for start, _ in spans])
        # Custom pieces may cross the end of a sentence; then they are not nested in it.
        if not callable(by) or of_starts(text, name, [end - 1 for _, end in spans]).groups == found.groups:
            yield found


def nested(found: Iterable[Grouping], n_features: int) -> tuple[Level, ...]:
    """Select the levels: 2 to F − 1 groups, each level nested in the one before and strictly finer."""
    levels: list[Level] = []
    for grouping in found:
        level = _numbered(grouping)
        if 2 <= len(level.texts) < n_features and (not levels or _refines(level, levels[-1])):
            levels.append(level)
    return tuple(levels)


def _numbered(grouping: Grouping) -> Level:
    """Number the groups that have features, in order of appearance."""
    number = {group: i for i, group in enumerate(dict.fromkeys(grouping.groups))}
    names = unique_names([short(grouping.texts[group]) for group in number])
    return Level(grouping.name, tuple(number[group] for group in grouping.groups), tuple(names))


def _refines(level: Level, outer: Level) -> bool:
    inside = set(zip(level.groups, outer.groups, strict=True))
    return len(inside) == len(level.texts) > len(outer.texts)
