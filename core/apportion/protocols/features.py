"""Features: the parts of a prompt that get a score. This module imports no tensors, so that results load fast."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Feature", "Level", "Segment"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One part of a prompt that gets one score, or (with ``attribute_generated=True``) one token of the target.

    Attributes:
        name: name shown in tables and plots; unique within the prompt.
        text: text of the prompt when the feature is present.
        members: the parts that are perturbed together, if there are several (a group of slots).
        baseline: text that replaces it when the feature is absent; ``""`` if it is removed.
        generated: position in the target, from 0, if the feature is one of its tokens; ``None`` for a part of the
            prompt.
    """

    name: str
    text: str
    members: tuple[str, ...] = ()
    baseline: str = ""
    generated: int | None = None

    def precedes(self, position: int) -> bool:
        """True if the target's token at this position is read after the feature, and so can depend on it."""
        return self.generated is None or self.generated < position


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of the full prompt, for display: its text and the feature it belongs to, if any."""

    text: str
    feature: int | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """A coarser grouping of the same features, such as the sentences of a text whose features are its words.

    Attributes:
        name: name of the grouping, such as ``"sentences"``.
        groups: the group that each feature belongs to, numbered from 0 in the order of the prompt.
        texts: a label for each group.
    """

    name: str
    groups: tuple[int, ...]
    texts: tuple[str, ...]
