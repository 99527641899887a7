"""Findings of `apportion plugins check`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Findings about one registered name.

    Attributes:
        kind: kind of extension, such as ``"methods"``.
        name: the name that users type.
        faults: sentences that describe faults; empty if there are none.
        tried: phrase that describes the trial run; empty if there was none.
    """

    kind: str
    name: str
    faults: tuple[str, ...]
    tried: str = ""
