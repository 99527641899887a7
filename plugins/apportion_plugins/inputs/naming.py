"""Names of features: their text, with a number if it occurs more than once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from apportion.errors import InputError, counted, listing, shown, suggestion
from apportion.functions import failures_of, wrong_answer
from apportion.phrases import one_line, unique_names
from apportion.prompts.common import Keep

__all__ = ["kept_indices", "positions", "short", "unique_names"]

T = TypeVar("T", bound=Hashable)

LONGEST = 60
"""Maximum length of a short name in characters."""


def short(text: str) -> str:
    """The text on one line, shortened."""
    return one_line(text, LONGEST)


def positions(values: Iterable[T]) -> dict[T, list[int]]:
    """The positions of each distinct value, in order of appearance."""
    found: dict[T, list[int]] = {}
    for position, value in enumerate(values):
        found.setdefault(value, []).append(position)
    return found


def kept_indices(
    keep: Keep, texts: Sequence[str], wider: Mapping[str, Collection[int]] | None = None
) -> frozenset[int]:
    """Indices of the pieces that are always present.

    Args:
        keep: the user's ``keep``.
        texts: texts of the pieces.
        wider: names of larger units that can be kept, such as whole turns, and the pieces of each.

    Raises:
        InputError: an index is out of range, a text does not match any piece, or a function failed or returned
            something else than ``True`` or ``False``.
    """
    wider = wider or {}
    stripped = [text.strip() for text in texts]
    if callable(keep):
        return frozenset(i for i, text in enumerate(texts) if _is_kept(keep, text))
    where = positions(stripped)
    kept: set[int] = set()
    wanted: dict[str, str | int] = {}
    for item in keep:
        if isinstance(item, int | np.integer) and not isinstance(item, bool):
            if not -len(texts) <= item < len(texts):
                raise InputError(
                    f"keep={shown(item)} is out of range; the prompt has {counted(len(texts), 'feature')}."
                )
            kept.add(int(item) % len(texts))
        else:
            wanted[item.strip() if isinstance(item, str) else shown(item)] = item
    for name, item in wanted.items():
        matches = where.get(name) or wider.get(name, ())
        if not matches:
            names = [*stripped, *wider]
            raise InputError(
                f"keep={item!r} is not a feature of this prompt. {suggestion(str(item), names)}"
                f"Its features are {listing(repr(short(text)) for text in names)}."
            )
        kept.update(matches)
    return frozenset(kept)


def _is_kept(keep: Callable[[str], bool], text: str) -> bool:
    with failures_of(keep, "keep", lambda: f"the text {short(text)!r}"):
        found: object = keep(text)
    if not isinstance(found, bool | np.bool_):
        raise wrong_answer(keep, "keep", "True or False", found, hint="Wrap the value in bool(…).")
    return bool(found)
