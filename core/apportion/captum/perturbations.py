"""Perturbed tensors of an interpretable input, by the coalitions of its features."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.captum.refusals import require

__all__ = ["Perturbations"]


class Perturbations:
    """The tensor of an interpretable input, in which absent features have their baseline.

    Args:
        inputs: the input's tensor, ``[1, E]``.
        baselines: a number, or a tensor that can be expanded to ``inputs``; ``None`` for 0.
        feature_mask: the feature of each element, counted from 0; elements of one feature are perturbed together.
            ``None`` if each element is a feature.
        from_zero: count features from the smallest number in the mask, as Captum's Lime does.

    Attributes:
        count: number of features, F: the largest number in the mask, and 1.
        feature_of: feature of each element.

    Raises:
        AssertionError: a tensor has another shape, or the mask is not of whole numbers from 0.
    """

    def __init__(
        self, inputs: Tensor, baselines: object = None, feature_mask: Tensor | None = None, *, from_zero: bool = False
    ) -> None:
        require(
            isinstance(inputs, Tensor) and inputs.ndim == 2 and len(inputs) == 1, "the input must have shape [1, E]"
        )
        self.inputs = inputs
        width = inputs.shape[1]
        require(width > 0, "the input has no features")
        if feature_mask is None:
            feature_mask = torch.arange(width)
        require(
            isinstance(feature_mask, Tensor) and feature_mask.numel() == width,
            f"the feature mask must be a tensor of {width} numbers, one for each feature, not {feature_mask!r:.80}",
        )
        numbers = feature_mask.detach().cpu().flatten()
        require(
            not numbers.is_floating_point() and not numbers.is_complex() and int(numbers.min()) >= 0,
            f"the feature mask must hold whole numbers from 0, not {numbers.tolist()!r:.80}",
        )
        self.feature_of = numbers.long() - (numbers.min() if from_zero else 0)
        self.count = int(self.feature_of.max()) + 1
        given = 0 if baselines is None else baselines
        is_number = isinstance(given, bool | int | float)
        require(
            is_number or (isinstance(given, Tensor) and given.shape in ((), (1,), (width,), (1, width))),
            f"baselines must be a number, or a tensor of shape [1, {width}], not {baselines!r:.80}",
        )
        self.absent = torch.as_tensor(given, device=inputs.device).expand_as(inputs)

    @property
    def binary(self) -> bool:
        """True if elements are features that are equally far from 0, and 0 when absent."""
        alike = bool((self.inputs == self.inputs[0, 0]).all()) and bool(self.inputs[0, 0] != 0)
        return alike and not bool(self.absent.any()) and self.feature_of.tolist() == list(range(self.count))

    def tensors(self, mask: Bool[Tensor, "S F"]) -> list[Tensor]:
        """The perturbed tensor ``[1, E]`` of each coalition."""
        present = mask[:, self.feature_of].to(self.inputs.device)
        return [torch.where(row, self.inputs, self.absent) for row in present[:, None]]

    def by_element(self, values: Float[Tensor, "F K"]) -> Float[Tensor, "K E"]:
        """Scores of elements: those of their features."""
        return values.T[:, self.feature_of]
