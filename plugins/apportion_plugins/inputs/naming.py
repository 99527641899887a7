"""Names for features: the text itself, numbered where it occurs again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from apportion.errors import InputError, listing, suggestion
from apportion.prompts.common import Keep

__all__ = ["kept_indices", "unique_names"]


def unique_names(texts: Sequence[str]) -> list[str]:
    """A name for each text: stripped, and with its number where the same text occurs again.

    >>> unique_names(["the", " cat", " the"])
    ['the', 'cat', 'the #2']
    """
    times: Counter[str] = Counter()
    names: dict[str, None] = {}
    for text in texts:
        plain = name = text.strip() or text
        while name in names:
            times[plain] += 1
            name = f"{plain} #{times[plain] + 1}"
        names[name] = None
    return list(names)


def kept_indices(keep: Keep, texts: Sequence[str]) -> frozenset[int]:
    """Which pieces are always present.

    Raises:
        InputError: an index out of range, or a text that no piece has.
    """
    stripped = [text.strip() for text in texts]
    if callable(keep):
        return frozenset(i for i, text in enumerate(texts) if keep(text))
    kept: set[int] = set()
    for item in keep:
        if isinstance(item, int | np.integer) and not isinstance(item, bool):
            if not -len(texts) <= item < len(texts):
                raise InputError(f"keep={item} is out of range; there are {len(texts)} features.")
            kept.add(int(item) % len(texts))
            continue
        matches = [i for i, text in enumerate(stripped) if text == str(item).strip()]
        if not matches:
            raise InputError(
                f"keep={item!r} is no feature of this text. {suggestion(str(item), stripped)}"
                f"Its features: {listing(map(repr, stripped))}."
            )
        kept.update(matches)
    return frozenset(kept)
