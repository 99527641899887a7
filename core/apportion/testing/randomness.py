"""Checks of random behaviour, with fixed seeds and wide margins."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["assert_mean", "generator", "only_its_own_generator", "rounded"]

MARGIN = 6.0
"""Allowed deviation of a mean in standard errors; chance alone exceeds it less than once in a million times."""


def generator(seed: int = 0) -> torch.Generator:
    """Make the ``rng`` that is passed to methods, samplers and metrics."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def only_its_own_generator() -> Iterator[None]:
    """Fail if the body draws from or seeds global random generators, or changes global settings.

    The generators start in unusual states, so that seeding is detected, and are restored afterwards.
    """
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(314159)
    np.random.seed(271828)
    random.seed(141421)
    try:
        before = _global_states()
        yield
        changed = [name for name, state in _global_states().items() if state != before[name]]
        assert not changed, (
            f"The global {changed[0]} changed. Draw from the generator that you are given (`rng`) only, and leave "
            "settings alone: a result must depend on the user's seed and on nothing else."
        )
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])


def assert_mean(
    samples: Float[Tensor, "R F"], expected: Float[Tensor, " F"], what: str, *, off_by: float = 0.0
) -> None:
    """Fail if the mean over R seeds differs from the expected value by more than its standard error explains.

    Args:
        samples: one row per seed; if all rows are equal (nothing is sampled), they must be exact to 1e-9.
        expected: the true values.
        what: beginning of the message.
        off_by: additional deviation allowed.
    """
    mean = samples.mean(0)
    error = samples.std(0) / len(samples) ** 0.5 if len(samples) > 1 else torch.zeros_like(mean)
    scale = max(1.0, float(expected.abs().max()))
    allowed = MARGIN * error + off_by + 1e-9 * scale
    wrong = ((mean - expected).abs() > allowed).nonzero().flatten().tolist()
    assert not wrong, (
        f"{what}: feature {wrong[0]} gets {float(mean[wrong[0]]):.6g} (mean over {len(samples)} seeds, standard error "
        f"{float(error[wrong[0]]):.2g}), but should get {float(expected[wrong[0]]):.6g}. All features: "
        f"{rounded(mean)}, expected {rounded(expected)}."
    )


def rounded(values: Tensor) -> list[float]:
    """Values for messages, with four decimals; only the first column of several."""
    return [round(value, 4) for value in (values[:, 0] if values.ndim > 1 else values).tolist()]


def _global_states() -> dict[str, object]:
    kind, keys, position, *_ = np.random.get_state()
    return {
        "random state of torch": torch.get_rng_state().numpy().tobytes(),
        "random state of NumPy": f"{kind}{position}".encode() + np.asarray(keys).tobytes(),
        "random state of Python": random.getstate(),
        "default dtype of torch": torch.get_default_dtype(),
        "gradient mode of torch": torch.is_grad_enabled(),
        "list of warning filters": list(warnings.filters),
    }
