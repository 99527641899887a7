"""Numbers of tokens at which a model's attention begins to work in another way, from its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["critical_sizes"]

NAMES = re.compile(r"window|chunk|top_?k|block_size|bucket|local|sparse|hash")
"""Parts of the names of windows, chunks and numbers of keys that are attended to."""
OTHER_NAMES = re.compile(r"expert|group|router|feed_forward|rope|token_id|moe|image|vision|audio|layer|pattern")
"""Parts of the names of sizes that do not depend on the number of tokens."""


def critical_sizes(config: Any) -> list[int]:
    """Sizes of windows, chunks and sparse attention, in order.

    Args:
        config: the text configuration of a model.
    """
    return sorted({size for name, value in vars(config).items() if _is_size(name) for size in _sizes(value)})


def _is_size(name: str) -> bool:
    return bool(NAMES.search(name)) and not OTHER_NAMES.search(name)


def _sizes(value: object) -> Iterator[int]:
    """Whole numbers above 1 in a setting, which may be a list of one for each layer."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _sizes(item)
    elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
        yield value
