"""Features: the parts of a prompt that get a score. No tensors here, so that results load fast."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Feature", "Level", "Segment"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One part of a prompt that gets one score.

    Attributes:
        name: unique within its prompt; what tables and plots call it.
        text: what stands in the prompt when the feature is present.
        members: the parts that are perturbed together, when there are several (a group of slots).
        baseline: what stands there when it is absent; ``""`` when it is removed.
    """

    name: str
    text: str
    members: tuple[str, ...] = ()
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the full prompt, for display: its text and the feature it belongs to, if any."""

    text: str
    feature: int | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """A coarser cut of the same features, such as the sentences of a text whose features are its words.

    Attributes:
        name: of the cut: ``"sentences"``.
        groups: the group that each feature belongs to, numbered from 0 in the order of the prompt.
        texts: what to call each group.
    """

    name: str
    groups: tuple[int, ...]
    texts: tuple[str, ...]
