"""The base class of all contracts."""

from __future__ import annotations

import difflib

__all__ = ["Contract"]


class Contract:
    """Base class of the contracts, which rejects misspelled attributes of subclasses."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        known = {name for base in cls.__mro__[1:] for name in vars(base) if not name.startswith("_")}
        for name, value in vars(cls).items():
            if name.startswith("_") or name in known or callable(value) or isinstance(value, property | staticmethod):
                continue
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if close:
                raise TypeError(
                    f"{cls.__name__}.{name} is not an attribute of its contract. Did you mean {close[0]!r}?"
                )
