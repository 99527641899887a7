"""Activations of modules for the prompt and for a baseline, and gradients at points between the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.inside import Inside, ModuleGradients
from apportion_plugins.methods.baselines import Baseline, embedded_baseline
from apportion_plugins.methods.layer_scores import Chosen, LayerScores, Maps
from apportion_plugins.methods.points import Points

__all__ = ["Ends", "Pair"]

COPIES = 3
"""What a point keeps of its activations besides gradients: those given, those returned, and one product at a time."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The prompt and its baseline, as embeddings.

    Attributes:
        points: the tokens that a method sets.
        prompt: embeddings of the prompt, then those of the baseline.
        following: the same for the target tokens that are read, if they are features.
    """

    points: Points
    prompt: Float[Tensor, "2 P D"]
    following: Float[Tensor, "2 N D"] | None

    @classmethod
    def of(cls, inside: Inside, baseline: Baseline, *, whole_prompt: bool) -> Pair:
        """Embed both.

        Args:
            inside: access to the model.
            baseline: embeds tokens in the baseline.
            whole_prompt: replace tokens that belong to no feature, too.

        Raises:
            InputError: the tokenizer has no such baseline, or its embeddings do not fit.
        """
        points = Points(inside, whole=True)
        moving = torch.ones_like(points.of_features) if whole_prompt else points.of_features
        start = torch.where(moving[:, None], embedded_baseline(inside, points, baseline), points.own)
        both, prompt = torch.stack([points.own, start]), len(inside.prompt_ids)
        return cls(points, both[:, :prompt], both[:, prompt:] if points.generates else None)

    @property
    def change(self) -> Float[Tensor, "X D"]:
        """Change of all embeddings that are set from the baseline to the prompt."""
        parts = [self.prompt] if self.following is None else [self.prompt, self.following]
        ends: Tensor = torch.cat(parts, dim=1)
        return ends[0] - ends[1]


@dataclass(frozen=True, slots=True)
class Ends:
    """Activations of modules for the prompt and for a baseline.

    Attributes:
        chosen: the modules.
        prompt: embeddings of the prompt.
        values: of the prompt, then of the baseline.
        activations: of the prompt, then of the baseline, ``Float[2, L, …]`` by name of the module; for the target, and
            then for its contrast if it has one.
    """

    chosen: Chosen
    prompt: Float[Tensor, "P D"]
    values: Float[Tensor, "2 K"]
    activations: Maps

    @classmethod
    def read(cls, chosen: Chosen, pair: Pair) -> Ends:
        """Read the activations, without gradients, which may not exist at the baseline; two evaluations."""
        found = chosen.gradients(pair.prompt, following=pair.following, slopes=False)
        return cls(chosen, pair.prompt[0], found.values, found.activations)

    def only(self, name: str) -> Ends:
        """The same for one module."""
        return replace(
            self,
            chosen=replace(self.chosen, names=(name,)),
            activations=[{name: part[name]} for part in self.activations],
        )

    def along(self, shares: Float[Tensor, " B"], *, tokens: bool) -> Iterator[tuple[slice, ModuleGradients]]:
        """Gradients at points between the baseline (0) and the prompt (1), as many at once as memory allows.

        All modules move together. Nothing flows from one to a later one: each has the activations of its point,
        whatever it reads.

        Args:
            shares: places of the points.
            tokens: gradients of each target token too.

        Yields:
            The points, as a slice of ``shares``, and what was found there.
        """
        rows = self.chosen.inside.rows_beside(self._bytes(tokens))
        for start in range(0, len(shares), rows):
            part = slice(start, min(start + rows, len(shares)))
            yield part, self._at(shares[part], tokens=tokens)

    def scores(self, *, whole: bool) -> LayerScores:
        """Empty sums of scores: gradients times changes from the baseline to the prompt, in fp32 or better."""
        changes = [{name: _wide(one)[0] - _wide(one)[1] for name, one in part.items()} for part in self.activations]
        return LayerScores(self.chosen, changes, whole)

    def start(self) -> Float[Tensor, " K"]:
        """Values at the start of the path, where the modules have their activations of the baseline."""
        return self._at(torch.zeros(1, dtype=torch.float64), slopes=False).values[0]

    def _at(self, shares: Float[Tensor, " B"], **settings: bool) -> ModuleGradients:
        given = [{name: _between(one, shares) for name, one in part.items()} for part in self.activations]
        return self.chosen.gradients(self.prompt.expand(len(shares), -1, -1), given=given, **settings)

    def _bytes(self, tokens: bool) -> int:
        """Bytes that a point takes besides the forward pass: its activations, and their gradients for each output."""
        own = sum(one[0].nbytes for part in self.activations for one in part.values())
        return own * (COPIES + (self.values.shape[1] if tokens else 1))


def _between(ends: Float[Tensor, "2 L ..."], shares: Float[Tensor, " B"]) -> Float[Tensor, "B L ..."]:
    prompt, baseline = _wide(ends).unbind()
    share = shares.to(prompt).reshape(-1, *[1] * prompt.ndim)
    between: Tensor = (baseline + share * (prompt - baseline)).to(ends.dtype)
    return between


def _wide(one: Tensor) -> Tensor:
    return one.to(torch.promote_types(one.dtype, torch.float32))
