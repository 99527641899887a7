"""Rules of numerical integration along a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import shown, unknown_name
from apportion.options import whole_number

__all__ = ["RULES", "checked_rule", "nodes"]

Nodes = tuple[np.ndarray, np.ndarray]
"""Places from 0 to 1, and the weight of each."""


def _gauss_legendre(steps: int) -> Nodes:
    places, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + places) / 2, weights / 2


def _trapezoid(steps: int) -> Nodes:
    weights = np.ones(steps)
    weights[[0, -1]] = 0.5
    return np.linspace(0, 1, steps), weights / weights.sum()


RULES: Mapping[str, Callable[[int], Nodes]] = {
    "gausslegendre": _gauss_legendre,
    "riemann_trapezoid": _trapezoid,
    "riemann_middle": lambda steps: ((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)),
    "riemann_left": lambda steps: (np.arange(steps) / steps, np.full(steps, 1 / steps)),
    "riemann_right": lambda steps: (np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)),
}
"""Rules by Captum's names. Weights add up to 1; Captum's for the trapezoids add up to 1 − 1 / steps."""

FEWEST = {"riemann_trapezoid": 2}


def checked_rule(rule: object, steps: object) -> int:
    """Check the name of a rule and its number of steps, and return the latter.

    Raises:
        UnknownNameError: there is no such rule.
        InputError: there are too few steps.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise unknown_name("rule of integration", rule if isinstance(rule, str) else shown(rule), RULES)
    return whole_number("steps", steps, least=FEWEST.get(rule, 1))


def nodes(rule: str, steps: int, like: Tensor) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Places on the path and their weights, of the dtype and on the device of ``like``."""
    places, weights = RULES[rule](steps)
    return torch.from_numpy(places).to(like), torch.from_numpy(weights).to(like)
