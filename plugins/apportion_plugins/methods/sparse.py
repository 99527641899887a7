"""Sparse regression, with standard errors from refits on resampled rows."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from apportion.errors import InputError, shown

__all__ = ["TOLERANCE", "check_positive", "lasso", "refitted"]

REFITS = 40
TOLERANCE, MOST_ROUNDS = 1e-9, 20_000
"""Tighter than scikit-learn's defaults, so that the order of features does not matter."""


def check_positive(**options: float) -> None:
    """Refuse options that are not positive numbers.

    Raises:
        InputError: the message names the option and its value.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{name}={shown(value)} must be a positive number.")


def lasso(
    design: Float[Tensor, "S P"],
    response: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    alpha: float,
    tolerance: float = TOLERANCE,
) -> Float[Tensor, "P K"]:
    """Coefficients of scikit-learn's ``Lasso`` with an intercept, one fit per output.

    Args:
        design: one row for each coalition.
        response: one column for each output.
        weight: weights of the rows.
        alpha: strength of the penalty.
        tolerance: tolerance of coordinate descent, scikit-learn's ``tol``.
    """
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    # Half of the time of a fit would be checks of its arguments, which are finite numbers.
    with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
        # A constant response triggers this warning; the coefficients are correctly 0.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Any fixed ``random_state``, so that NumPy's global state is not read; nothing is drawn.
        state = np.random.RandomState(0)
        model = Lasso(alpha=alpha, tol=tolerance, max_iter=MOST_ROUNDS, random_state=state).fit(
            np.asfortranarray(design), np.asfortranarray(response), sample_weight=weight.numpy(), check_input=False
        )
    found = np.asarray(model.coef_).reshape(response.shape[1], design.shape[1])
    return torch.from_numpy(found.T.copy())


def refitted(
    design: Float[Tensor, "S P"],
    response: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    alpha: float,
    rng: torch.Generator,
    tolerance: float = TOLERANCE,
) -> Float[Tensor, "R P K"]:
    """Deviations from the mean of coefficients refitted on rows drawn with replacement; no new evaluations.

    They are scaled for the degrees of freedom, so that their standard deviation is the standard error.
    """
    count = len(design)
    fits = []
    for _ in range(REFITS):
        rows = torch.randint(count, (count,), generator=rng)
        fits.append(lasso(design[rows], response[rows], weight[rows], alpha, tolerance))
    widened = float(stdtrit(max(1, count - design.shape[1] - 1), 0.975) / 1.959964)
    found = torch.stack(fits)
    moves: Tensor = (found - found.mean(0)) * widened
    return moves
