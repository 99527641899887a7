"""Monotonic paths from a baseline to tokens, along the embeddings of other tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["STRATEGIES", "VocabularyPaths"]

AT_ONCE = 32
"""Number of tokens whose neighbours are searched at once."""


def _distance_when_monotonic(
    anchors: Float[Tensor, "C N D"], word: Float[Tensor, "C 1 D"], baseline: Float[Tensor, "C 1 D"], steps: int
) -> Float[Tensor, "C N"]:
    moved: Tensor = (anchors - _monotonic(anchors, word, baseline, steps)).norm(dim=-1)
    return moved


def _dimensions_off(
    anchors: Float[Tensor, "C N D"], word: Float[Tensor, "C 1 D"], baseline: Float[Tensor, "C 1 D"], steps: int
) -> Float[Tensor, "C N"]:
    return (~_between(anchors, word, baseline)).sum(-1).to(anchors.dtype)


STRATEGIES: Mapping[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "greedy": _distance_when_monotonic,
    "maxcount": _dimensions_off,
}
"""What the next token on a path has least of: the distance to its monotonic version, or dimensions that are not."""


class VocabularyPaths:
    """Paths whose points are near embeddings of tokens (Sanyal and Ren 2021).

    From a token, a path goes on to one of its nearest neighbours in the vocabulary, again and again. Each point is then
    made monotonic: a dimension that is not between the point before and the baseline moves by a small step towards the
    baseline instead.

    Args:
        table: embeddings of the vocabulary.
        neighbours: number of nearest neighbours among which the next token is chosen.
        steps: number of points of a path, both ends included.
        strategy: name of the choice among neighbours.
    """

    def __init__(self, table: Float[Tensor, "V D"], neighbours: int, steps: int, strategy: str) -> None:
        self._table = table
        self._squares = table.square().sum(1)
        self._neighbours = min(neighbours, len(table) - 1)
        self._steps = steps
        self._cost = STRATEGIES[strategy]

    def __call__(
        self,
        words: Int[Tensor, " X"],
        baselines: Float[Tensor, "X D"],
        baseline_id: int | None,
        stay: Bool[Tensor, " X"],
    ) -> Float[Tensor, "S X D"]:
        """Paths from the baselines to words.

        Args:
            words: token ids.
            baselines: where each path starts.
            baseline_id: the token that has this embedding, if one has; no path goes through it.
            stay: words whose path has only the word itself on it, after the baseline.
        """
        found = [
            self._paths(words[part], baselines[part], -1 if baseline_id is None else baseline_id, stay[part])
            for part in (slice(i, i + AT_ONCE) for i in range(0, len(words), AT_ONCE))
        ]
        return torch.cat(found, dim=1)

    def _paths(
        self,
        words: Int[Tensor, " C"],
        baselines: Float[Tensor, "C D"],
        baseline_id: int,
        stay: Bool[Tensor, " C"],
    ) -> Float[Tensor, "S C D"]:
        at_baseline = words == baseline_id
        visited = words[:, None]
        points = [self._table[words]]
        for _ in range(self._steps - 2):
            chosen, none_left = self._next(visited, baselines, baseline_id)
            chosen = torch.where(stay, words, chosen)
            at_baseline = at_baseline | (none_left & ~stay)
            anchors = torch.where(at_baseline[:, None], baselines, self._table[chosen])
            points.append(_monotonic(anchors, points[-1], baselines, self._steps))
            visited = torch.cat([visited, chosen[:, None]], dim=1)
        return torch.stack([*points, baselines]).flip(0)

    def _next(
        self, visited: Int[Tensor, "C L"], baselines: Float[Tensor, "C D"], baseline_id: int
    ) -> tuple[Int[Tensor, " C"], Bool[Tensor, " C"]]:
        """The best neighbour of each path's last word, and whether there is none that is new."""
        words = self._table[visited[:, -1]]
        near = self._nearest(visited[:, -1])
        cost = self._cost(self._table[near], words[:, None], baselines[:, None], self._steps)
        known = (near[:, :, None] == visited[:, None, :]).any(-1) | (near == baseline_id)
        cost = cost.masked_fill(known, torch.inf)
        return near.gather(1, cost.argmin(1, keepdim=True))[:, 0], known.all(1)

    def _nearest(self, words: Int[Tensor, " C"]) -> Int[Tensor, "C N"]:
        """Exact search: one matrix product with the whole vocabulary."""
        distance = self._squares - 2 * self._table[words] @ self._table.T
        distance.scatter_(1, words[:, None], torch.inf)
        return distance.topk(self._neighbours, largest=False).indices


def _between(
    anchors: Float[Tensor, "*shape D"], point: Float[Tensor, "*shape D"], baseline: Float[Tensor, "*shape D"]
) -> Bool[Tensor, "*shape D"]:
    """Dimensions in which an anchor is between a point and the baseline."""
    low, high = torch.minimum(point, baseline), torch.maximum(point, baseline)
    return (low <= anchors) & (anchors <= high)


def _monotonic(
    anchors: Float[Tensor, "*shape D"],
    point: Float[Tensor, "*shape D"],
    baseline: Float[Tensor, "*shape D"],
    steps: int,
) -> Float[Tensor, "*shape D"]:
    """Anchors, with a small step from the point to the baseline in the dimensions that are not between the two."""
    return torch.where(_between(anchors, point, baseline), anchors, point - (point - baseline) / steps)
