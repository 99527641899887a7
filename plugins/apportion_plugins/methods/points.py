"""Points in the space of embeddings: what gradient methods read, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, CapabilityError, counted
from apportion.protocols.inside import Inside
from apportion_plugins.methods.token_scores import TokenScores

__all__ = ["Points", "Slopes", "check_budget", "check_not_stationary"]


@dataclass(frozen=True, slots=True)
class Slopes:
    """Values and gradients at B points.

    Attributes:
        values: value of each output.
        gradients: gradient of each output at each point; O = 1 for the whole target alone.
    """

    values: Float[Tensor, "B K"]
    gradients: Float[Tensor, "O B X D"]


class Points:
    """The X tokens whose embeddings a method sets: of the prompt, then target tokens if they are features.

    Embeddings of half precision are widened to fp32, so that small differences between points are kept until the model
    rounds them.

    Args:
        inside: access to the model.
        whole: set the embeddings of all tokens of the prompt; else those before the first feature stay the model's
            own and are read only once.

    Attributes:
        own: the tokens' own embeddings.
        owners: the feature of each token, or ``None``.
        ids: the tokens.
        generates: target tokens are among them.
    """

    def __init__(self, inside: Inside, *, whole: bool) -> None:
        self._inside = inside
        self._fixed = 0 if whole else inside.fixed
        self._prompt = len(inside.prompt_ids) - self._fixed
        self.generates = any(feature is not None for feature in inside.generated_feature_of)
        parts = [inside.embeddings()[self._fixed :]]
        owners, ids = inside.feature_of[self._fixed :], inside.prompt_ids[self._fixed :]
        if self.generates:
            parts.append(inside.following())
            owners, ids = owners + inside.generated_feature_of, ids + inside.targets[0][:-1]
        own = torch.cat(parts)
        self.own: Float[Tensor, "X D"] = own.to(torch.promote_types(own.dtype, torch.float32))
        self.owners = owners
        self.ids = ids

    @property
    def of_features(self) -> Bool[Tensor, " X"]:
        """True for each token that belongs to a feature."""
        return torch.tensor([owner is not None for owner in self.owners], device=self.own.device)

    def values(self, points: Float[Tensor, "B X D"]) -> Float[Tensor, "B K"]:
        """Values at points, without gradients."""
        found = []
        with torch.no_grad():
            for some in torch.split(points, self._inside.batch_rows):
                prompt, following = self._split(some)
                found.append(self._inside.values(prompt, following=following))
        return torch.cat(found)

    def parts(self, count: int) -> Iterator[slice]:
        """Split a number of points into as many at once as fit into memory."""
        rows = self._inside.batch_rows
        for start in range(0, count, rows):
            yield slice(start, min(count, start + rows))

    def gradients(self, points: Float[Tensor, "B X D"], *, tokens: bool) -> Slopes:
        """Values and gradients at points, for each target token too if ``tokens`` is set.

        Raises:
            ScoreError: a gradient is not finite.
        """
        prompt, following = self._split(points)
        found = self._inside.gradients(prompt, following=following, tokens=tokens)
        slopes = [found.prompt] if found.generated is None else [found.prompt, found.generated.to(found.prompt)]
        gradients = torch.cat(slopes, dim=2).to(self.own.dtype)
        return Slopes(found.values, gradients)

    def scores(self, found: Float[Tensor, "O X D"]) -> TokenScores:
        """Scores of all tokens; those that were not set have 0."""
        prompt = torch.cat([found.new_zeros(len(found), self._fixed, found.shape[2]), found[:, : self._prompt]], dim=1)
        return TokenScores(prompt, found[:, self._prompt :] if self.generates else None)

    def _split(self, points: Float[Tensor, "B X D"]) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B N D"] | None]:
        return points[:, : self._prompt], points[:, self._prompt :] if self.generates else None


def check_not_stationary(inside: Inside) -> None:
    """Refuse a score whose gradients at the prompt are all 0: only rounding errors would be left of them.

    Raises:
        CapabilityError: it is such a score.
    """
    if inside.stationary:
        raise CapabilityError(
            "The target function compares every prompt with this very prompt, where it has its minimum or maximum, so "
            "all gradients at the prompt are 0. Use another reference, such as target_options={'reference': 'empty'}, "
            "or a method that looks at other prompts: 'integrated_gradients', or a perturbation method."
        )


def check_budget(budget: int | None, needed: int, what: str, advice: str) -> None:
    """Refuse a budget that does not allow the evaluations of a method.

    Args:
        budget: the budget; ``None`` for no limit.
        needed: number of evaluations.
        what: what takes them, such as ``"Integrated gradients in 50 steps"``.
        advice: what to do instead of raising the budget.

    Raises:
        BudgetError: the budget is too small.
    """
    if budget is not None and budget < needed:
        verb = "take" if what.split()[0].endswith("s") else "takes"
        raise BudgetError(
            f"{what} {verb} {counted(needed, 'evaluation')}, and the budget is {budget}. Raise it to {needed}, or "
            f"{advice}."
        )
