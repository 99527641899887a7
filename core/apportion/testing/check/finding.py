"""What was found about one registered name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one registered name.

    Attributes:
        kind: such as ``"methods"``.
        name: what users type.
        faults: sentences; empty if all is well.
        tried: what was run, a phrase; empty if it did not come to that.
    """

    kind: str
    name: str
    faults: tuple[str, ...]
    tried: str = ""
