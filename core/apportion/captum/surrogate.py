"""The parts of Lime that users exchange: samples, their weights, and the linear model."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from apportion.captum.perturbations import Perturbations
from apportion.captum.refusals import RefusedError, require
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = [
    "FixedCoalitions",
    "Kernel",
    "SkLearnLasso",
    "SkLearnLinearModel",
    "SkLearnLinearRegression",
    "SkLearnRidge",
    "Surrogate",
    "draw_as_training",
    "get_exp_kernel_similarity_function",
    "kernel_of",
    "perturbed_samples",
    "trained",
]

Kernel = Callable[..., float]


class Surrogate(Protocol):
    """A model that Lime trains."""

    def fit(self, train_data: DataLoader[Any]) -> object:
        """Train on batches of samples ``[S, F]``, values ``[S]`` and weights ``[S]``."""

    def representation(self) -> Tensor:
        """Return a coefficient for each feature."""


class SkLearnLinearModel:
    """A linear model of scikit-learn.

    Args:
        sklearn_module: its path, such as ``"linear_model.Ridge"``.
        **kwargs: arguments of its class.
    """

    def __init__(self, sklearn_module: str, **kwargs: Any) -> None:
        self.sklearn_module, self.construct_kwargs = sklearn_module, kwargs
        self.linear: nn.Linear | None = None

    def fit(self, train_data: DataLoader[Any], **kwargs: Any) -> dict[str, float]:
        """Train on all batches together; ``kwargs`` are passed on to ``fit`` of scikit-learn."""
        import importlib

        module, name = f"sklearn.{self.sklearn_module}".rsplit(".", 1)
        model = getattr(importlib.import_module(module), name)(**self.construct_kwargs)
        parts = [torch.cat(part).double().numpy() for part in zip(*train_data, strict=True)]
        if len(parts) == 3:
            kwargs["sample_weight"] = parts[2]
        model.fit(parts[0], parts[1], **kwargs)
        coefficients = torch.from_numpy(np.atleast_2d(model.coef_)).float()
        self.linear = nn.Linear(coefficients.shape[1], len(coefficients)).requires_grad_(False)
        self.linear.weight.copy_(coefficients)
        self.linear.bias.copy_(torch.as_tensor(np.atleast_1d(model.intercept_)))
        return {}

    def representation(self) -> Tensor:
        """Return the coefficients ``[1, F]``.

        Raises:
            AssertionError: the model is not trained yet.
        """
        return self._trained().weight

    def bias(self) -> Tensor:
        """Return the intercept ``[1]``.

        Raises:
            AssertionError: the model is not trained yet.
        """
        return self._trained().bias

    def _trained(self) -> nn.Linear:
        if self.linear is None:
            raise RefusedError("the model is not trained yet; call fit")
        return self.linear


class SkLearnLasso(SkLearnLinearModel):
    """The Lasso; arguments such as ``alpha`` are those of scikit-learn."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("linear_model.Lasso", **kwargs)


class SkLearnRidge(SkLearnLinearModel):
    """Ridge regression; arguments such as ``alpha`` are those of scikit-learn."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("linear_model.Ridge", **kwargs)


class SkLearnLinearRegression(SkLearnLinearModel):
    """Least squares; arguments are those of scikit-learn."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("linear_model.LinearRegression", **kwargs)


def get_exp_kernel_similarity_function(distance_mode: str = "cosine", kernel_width: float = 1.0) -> Kernel:
    """Return the weight exp(−d² / 2w²) of a sample at distance d from the input.

    Args:
        distance_mode: ``"cosine"`` or ``"euclidean"``.
        kernel_width: w.

    Raises:
        AssertionError: the distance is none of these; Captum raises ``ValueError``, which this is, too.
    """
    require(
        distance_mode in ("cosine", "euclidean"),
        f"distance_mode must be either cosine or euclidean, not {distance_mode!r:.40}",
    )

    def kernel(original_inp: Tensor, perturbed_inp: Tensor, _: object, **kwargs: object) -> float:
        own, other = original_inp.flatten().float(), perturbed_inp.flatten().float()
        if distance_mode == "cosine":
            distance = 1 - float(torch.nn.functional.cosine_similarity(own, other, dim=0))
        else:
            distance = float((own - other).norm())
        return math.exp(-(distance**2) / (2 * kernel_width**2))

    return kernel


def kernel_of(given: Kernel | None) -> Callable[..., float]:
    """A kernel that returns a number, whatever the user's returns; the default one if none is given."""
    kernel = given or get_exp_kernel_similarity_function()

    def weight(original: Tensor, perturbed: Tensor, sample: Tensor, options: dict[str, object]) -> float:
        return float(kernel(original, perturbed, sample, **options))

    return weight


@dataclass(frozen=True)
class Samples:
    """Samples of the features.

    Attributes:
        rows: zeros and ones, ``[S, F]``.
        perturbations: the tensors of coalitions.
        options: what a user's functions receive as keywords.
    """

    rows: Tensor
    perturbations: Perturbations
    options: dict[str, object]

    def compared(self) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, object]]]:
        """The arguments of a kernel for each sample."""
        perturbed = self.perturbations.tensors(self.rows.bool())
        for tensor, row in zip(perturbed, self.rows, strict=True):
            yield self.perturbations.inputs, tensor, row[None], self.options


def perturbed_samples(perturb_func: Callable[..., Any] | None, perturbations: Perturbations, count: int) -> Samples:
    """Draw samples, by a user's function or as Captum does; fewer if a generator ends.

    Raises:
        AssertionError: a sample does not have shape ``[1, F]``.
    """
    options: dict[str, object] = {
        "feature_mask": perturbations.feature_of[None],
        "baselines": perturbations.absent,
        "num_interp_features": perturbations.count,
    }
    rows: list[Tensor] = []
    generator = perturb_func(perturbations.inputs, **options) if inspect.isgeneratorfunction(perturb_func) else None
    for _ in range(count):
        if generator is not None:
            sample = next(generator, None)
            if sample is None:
                warnings.warn("Generator completed prior to given n_samples iterations!", stacklevel=4)
                break
        elif perturb_func is not None:
            sample = perturb_func(perturbations.inputs, **options)
        else:
            sample = torch.bernoulli(torch.full((1, perturbations.count), 0.5)).long()
        require(
            isinstance(sample, Tensor) and sample.shape == (1, perturbations.count),
            f"perturb_func must return a tensor of shape [1, {perturbations.count}], not {sample!r:.80}",
        )
        rows.append(sample.cpu())
    require(bool(rows), "perturb_func returned no sample")
    return Samples(torch.cat(rows), perturbations, options)


class FixedCoalitions:
    """A method that evaluates given coalitions and keeps their values.

    Attributes:
        values: ``Float[S, K]`` after a run.
    """

    estimand, requires = "LIME coefficient", frozenset[Capability]()

    def __init__(self, mask: Bool[Tensor, "S F"]) -> None:
        self._mask = mask
        self.values: Float[Tensor, "S K"] = torch.empty(0)

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Evaluate the coalitions; the estimate is empty."""
        self.values = game.values(self._mask)
        return Estimate(torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64))


def trained(
    model: Surrogate | None, rows: Tensor, values: Float[Tensor, " S"], weights: Float[Tensor, " S"]
) -> Float[Tensor, " F"]:
    """Coefficients of a model that is trained on samples in one batch, in single precision as in Captum."""
    chosen = SkLearnLasso(alpha=0.01) if model is None else model
    data = TensorDataset(rows.float(), values.float(), weights.float())
    chosen.fit(DataLoader(data, batch_size=len(rows)))
    return chosen.representation().detach().flatten().double().cpu()


def draw_as_training(features: int) -> None:
    """Draw what Captum draws when it trains a linear model: a loader's seed, and weights that are replaced."""
    torch.empty((), dtype=torch.int64).random_()
    nn.Linear(features, 1)
