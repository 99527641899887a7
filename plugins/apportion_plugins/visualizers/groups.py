"""The tree of groups in a result, as shown by views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import ResultError
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.labels import cut, ellipsis, one_line
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.selection import checked_token, largest, left_out

__all__ = ["Group", "down_to", "groups_of", "half_widths_of", "has_groups", "strongest"]

ADVICE = 'Run attribute again with method="hierarchical".'


@dataclass(frozen=True)
class Group:
    """A group of features, or a single feature.

    Attributes:
        text: name of the group.
        depth: depth in the tree; 0 for the parts of the whole prompt.
        parent: index of the group that contains it; ``None`` for the parts of the whole prompt.
        size: number of features.
        parts: number of parts that were scored.
        value: score for the whole target or one token.
        half_width: half-width of the 95 % interval; NaN where unknown, ``None`` where exact.
    """

    text: str
    depth: int
    parent: int | None
    size: int
    parts: int
    value: float
    half_width: float | None

    @property
    def closed(self) -> bool:
        """True for a group that was not expanded, so that its features share its score."""
        return self.size > 1 and not self.parts

    def label(self, width: int) -> str:
        """Its text in at most ``width`` columns."""
        # A feature's name may end in a number that distinguishes it from another.
        return (cut if self.size > 1 else ellipsis)(one_line(self.text), width)

    def tag(self, shown: int) -> str:
        """Note on parts that are not shown; empty if all are, and for single features."""
        if self.closed:
            return f"{self.size} features, not expanded"
        hidden = self.parts - shown
        return f"{hidden}{' more' if shown else ''} part{'' if hidden == 1 else 's'} not shown" if hidden else ""


def has_groups(attribution: Attribution) -> bool:
    """True if the result has a tree."""
    return "tree" in attribution.extras


def groups_of(attribution: Attribution, token: int | None = None) -> list[Group]:
    """The groups in the order of the prompt, each followed by its parts.

    Args:
        attribution: the result.
        token: position of a target token; ``None`` for the whole target.

    Raises:
        ResultError: the result has no tree, or a malformed one.
        InputError: there is no such token.
    """
    if not has_groups(attribution):
        raise ResultError(
            f"This result of method {attribution.provenance.method!r} has no tree of feature groups. {ADVICE}"
        )
    token = checked_token(attribution, token)
    try:
        rows = list(attribution.extras["tree"])
        if not rows:
            raise ValueError("it is empty")
        parents = [None if row["parent"] is None else int(row["parent"]) for row in rows]
        if any(parent is not None and not 0 <= parent < i for i, parent in enumerate(parents)):
            raise ValueError("a group comes before the one that contains it")
        return [_group(row, parents, i, token) for i, row in enumerate(rows)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ResultError(f"The tree of this result is malformed: {type(error).__name__}: {error}. {ADVICE}") from error


def half_widths_of(groups: Sequence[Group]) -> Float64[np.ndarray, " N"] | None:
    """Half-width of each group's interval; ``None`` if all scores are exact."""
    if all(group.half_width is None for group in groups):
        return None
    return np.array([0.0 if group.half_width is None else group.half_width for group in groups])


def down_to(groups: Sequence[Group], depth: int | None) -> list[Group]:
    """The groups of the top ``depth`` levels; all if ``None``."""
    kept = [i for i, group in enumerate(groups) if depth is None or group.depth < depth]
    place = {old: new for new, old in enumerate(kept)}
    return [
        replace(group, parent=None if group.parent is None else place[group.parent])
        for group in (groups[i] for i in kept)
    ]


def strongest(groups: Sequence[Group], limit: int | None, option: str) -> tuple[list[int], list[str]]:
    """Indices of the groups of largest magnitude and the groups that contain them, and a note on the others.

    Args:
        groups: all groups.
        limit: maximum number; ``None`` for all.
        option: the user's name for the limit.
    """
    weight: Float64[np.ndarray, " N"] = np.array([abs(group.value) for group in groups])
    # A group counts as much as the strongest group in it, so that it is shown whenever that one is.
    for i in range(len(groups) - 1, -1, -1):
        parent = groups[i].parent
        if parent is not None:
            weight[parent] = max(weight[parent], weight[i])
    rows = largest(weight, limit)
    return rows, left_out(weight, rows, "groups and features", option, "|score|")


def _group(row: Mapping[str, Any], parents: Sequence[int | None], i: int, token: int | None) -> Group:
    if token is None:
        value, error = row["value"], row["std_error"]
    else:
        errors = row.get("token_std_error")
        value, error = row["token_values"][token], None if errors is None else errors[token]
    return Group(
        text=str(row["text"]),
        depth=int(row["depth"]) - 1,
        parent=parents[i],
        size=len(row["members"]),
        parts=parents.count(i),
        value=np.nan if value is None else float(value),
        half_width=None if error is None else INTERVAL * float(error),
    )
