"""Several texts (turns, documents), each split into pieces; the pieces of all texts are the units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from apportion.rendering.encoder import check_encodable
from apportion_plugins.inputs.levels import Grouping, of_pieces
from apportion_plugins.inputs.marks import marked
from apportion_plugins.inputs.pieces import Pieces, cut

__all__ = ["Sections"]


class Sections:
    """Texts split into pieces.

    Args:
        texts: one text per section; blank ones have no pieces.
        by: unit to split them into.

    Attributes:
        units: the pieces of all sections.
        section_of: section of each unit.

    Raises:
        InputError: a text is not valid Unicode, or cannot be split.
    """

    def __init__(self, texts: Sequence[str], by: str | Callable[[str], Sequence[str]]) -> None:
        for text in texts:
            check_encodable("prompt", text)
        self._texts = texts
        self._by = by
        self._cuts = [cut(text, by) if text.strip() else None for text in texts]
        self.units: list[str] = []
        self.section_of: list[int] = []
        self._spans: list[tuple[int, int]] = []
        self._joined: dict[tuple[int, bool, str | None], str] = {}
        for section, pieces in enumerate(self._cuts):
            if pieces is not None:
                self.units += pieces.pieces
                self.section_of += [section] * len(pieces.pieces)
                self._spans += pieces.spans()

    def join(self, present: Sequence[bool], baseline: str | None, *, marks: bool = False) -> list[str]:
        """Text of every section with some units absent. ``marks`` wraps units, all of which must be present."""
        done = 0
        texts: list[str] = []
        for section, (text, pieces) in enumerate(zip(self._texts, self._cuts, strict=True)):
            if pieces is None:
                texts.append(text)
                continue
            count = len(pieces.pieces)
            if marks:
                pieces = replace(pieces, pieces=tuple(marked(p, done + i) for i, p in enumerate(pieces.pieces)))
                texts.append(pieces.join(present[done : done + count], baseline))
            elif count == 1:
                texts.append(self._whole_or_not(section, pieces, present[done], baseline))
            else:
                texts.append(pieces.join(present[done : done + count], baseline))
            done += count
        return texts

    def _whole_or_not(self, section: int, pieces: Pieces, present: bool, baseline: str | None) -> str:
        """Text of a section with a single piece, such as a whole document. Both versions are cached."""
        key = (section, present, baseline)
        if key not in self._joined:
            self._joined[key] = pieces.join([present], baseline)
        return self._joined[key]

    def groupings(self, outer: Grouping, units: Sequence[int], others: Sequence[str] = ()) -> Iterator[Grouping]:
        """Candidates for levels, coarsest first.

        Args:
            outer: group of each section, such as its turn.
            units: first unit of each feature; units beyond the pieces are ``others``, each in its own group.
            others: names of these units.
        """
        count = len(self.units)
        own = [unit for unit in units if unit < count]
        of_own = [outer.groups[self.section_of[unit]] for unit in own]
        yield _with_others(Grouping(outer.name, of_own, outer.texts), units, count, others)
        for inner in self._inner(own):
            yield _with_others(inner, units, count, others)

    def _inner(self, units: Sequence[int]) -> Iterator[Grouping]:
        found: dict[str, list[Grouping]] = {}
        sections: dict[int, list[tuple[int, int]]] = {}
        for unit in units:
            sections.setdefault(self.section_of[unit], []).append(self._spans[unit])
        for section, spans in sections.items():
            for grouping in of_pieces(self._texts[section], self._by, spans):
                found.setdefault(grouping.name, []).append(grouping)
        for name, parts in found.items():
            if len(parts) < len(sections):
                continue
            groups: list[int] = []
            texts: list[str] = []
            for part in parts:
                groups += [len(texts) + group for group in part.groups]
                texts += part.texts
            yield Grouping(name, groups, texts)


def _with_others(found: Grouping, units: Sequence[int], count: int, others: Sequence[str]) -> Grouping:
    own = iter(found.groups)
    first = len(found.texts)
    groups = [next(own) if unit < count else first + unit - count for unit in units]
    return Grouping(found.name, groups, [*found.texts, *others])
