"""The modules of a result, arranged in panels: one for what several layers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.results.attribution import Attribution
from apportion.results.modules import ModulePlace, place_of, short_parts

__all__ = ["Panel", "has_modules", "panels_of"]


def has_modules(attribution: Attribution) -> bool:
    """True if the result has values of modules."""
    return "modules" in attribution.extras


@dataclass(frozen=True)
class Panel:
    """A heat map of modules that do the same in different layers.

    Attributes:
        name: what they have in common.
        rows: their places in the result.
        labels: a label for each of them.
        numbered: the labels are numbers of layers.
    """

    name: str
    rows: tuple[int, ...]
    labels: tuple[str, ...]
    numbered: bool = True


def panels_of(names: Sequence[str]) -> list[Panel]:
    """Panels for the modules of a result, in their order: one for each module that several layers have.

    Modules that only one layer has, or that belong to no layer, share the last panel.
    """
    places = [place_of(name) for name in names]
    by_part: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        by_part.setdefault(place.part, []).append(i)
    short = short_parts(list(by_part))
    made, single = [], []
    for part, rows in by_part.items():
        if len(rows) == 1:
            single += rows
            continue
        rows = sorted(rows, key=lambda i: places[i].layer or 0)
        made.append(Panel(short[part], tuple(rows), tuple(str(places[i].layer) for i in rows)))
    if single:
        labels = tuple(_single(places[i], short) for i in single)
        made.append(Panel("other modules" if made else "", tuple(single), labels, numbered=False))
    return made


def _single(place: ModulePlace, short: dict[str, str]) -> str:
    return short[place.part] if place.layer is None else f"{short[place.part]} {place.layer}"
