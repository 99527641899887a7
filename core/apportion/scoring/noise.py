"""Noise of sampled texts: its way from the samples of each prompt into the standard errors of a result.

The mean value of S texts has a variance of s² / S, where s² is their sample variance. A method turns the means of many
prompts into attributions, and nobody but the method knows how. So each prompt's value is accompanied by replicates: the
mean plus independent normal noise of just that variance (the multiplier bootstrap: Mammen, Annals of Statistics 21,
1993). The method treats them as further outputs, and their spread around the attributions of the means is the noise.

The standard errors of a method that samples coalitions contain part of this noise already: they come from differences
between values, and these are noisy. Replicates have the noise twice, so that the growth of their squared errors over
those of the means is that part; it is subtracted, as simulation extrapolation does (Cook & Stefanski, JASA 89, 1994).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.methods import Estimate

__all__ = ["REPLICATES", "columns_of", "outputs_of", "with_noise"]

REPLICATES = 64
"""Number of replicates: standard errors of noise are known to within 1 / √(2 · 64), or 9 %."""

TABLES = ("interactions", "tree")
"""Extras of methods that have standard errors of their own."""
OF_TOKENS = "token_"
"""Beginning of the names of extras with a part for each output but the first."""


def outputs_of(samples: int) -> int:
    """Number of outputs of a game whose values are means of samples."""
    return 1 if samples == 1 else 1 + REPLICATES


def columns_of(values: Float[Tensor, "N S"], keys: Sequence[str]) -> Float[Tensor, "N K"]:
    """The mean of the samples of each prompt, and its replicates if there are several samples.

    Args:
        values: the value of each text.
        keys: a text for each prompt, from which its noise is drawn: the same in every batch.
    """
    count = values.shape[1]
    mean = values.mean(1, keepdim=True)
    if count == 1:
        return mean
    noise = torch.stack([_normal(key, count) for key in keys])
    # The noise of a sum of independent terms: each sample's deviation times a normal number of its own.
    deviations = (values - mean) / (count * (count - 1)) ** 0.5
    return torch.cat([mean, mean + torch.einsum("ns,nsr->nr", deviations, noise)], dim=1)


def with_noise(estimate: Estimate, *, known: bool = True) -> Estimate:
    """The estimate of the means alone, with the noise of the samples in its standard errors.

    Args:
        estimate: values and standard errors of the means and of their replicates.
        known: standard errors are known if the estimate has some, and 0 if it has none; otherwise they stay unknown.
    """
    if not known:
        extras = _of_means(estimate.extras)
        return replace(estimate, values=estimate.values[:, :1], std_error=None, replicates=None, extras=extras)
    values, errors = estimate.values.double(), estimate.std_error
    away = values[:, 1:] - values[:, :1]
    noise = away.square().mean(1)
    notes: list[str] = []
    if tables := [name for name in TABLES if name in estimate.extras]:
        notes.append(f"the noise of texts is in the errors of single features, and not in those of the {tables[0]}")
    variance = noise if errors is None else noise + _without_noise(errors.double().square())
    return replace(
        estimate,
        values=estimate.values[:, :1],
        std_error=variance.sqrt()[:, None],
        extras=_of_means(estimate.extras),
        notes=(*estimate.notes, *notes),
        # Replicates of sampled coalitions hold another part of the noise; without them, errors count as normal.
        replicates=values[:, 1:].T.contiguous() if errors is None else None,
    )


def _without_noise(squares: Float[Tensor, "F K"]) -> Float[Tensor, " F"]:
    """The squared errors of a method without the noise that they contain.

    The share of noise is that of all features together, because single ones are as uncertain as their errors.

    Args:
        squares: squared errors of the means, and of their replicates, which contain the noise twice.
    """
    own = squares[:, 0]
    noise = squares[:, 1:].mean(1) - own
    whole = own.nansum()
    share = (1 - noise.nansum() / whole).clamp(0, 1) if whole > 0 else 0.0
    return own * share


def _of_means(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Extras without tables of further outputs, which are replicates and not tokens."""
    found = {name: value for name, value in extras.items() if not name.startswith(OF_TOKENS)}
    if "tree" in found:
        found["tree"] = [{**row, "token_values": [], "token_std_error": None} for row in found["tree"]]
    return found


def _normal(key: str, count: int) -> Float[Tensor, "S R"]:
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 1
    return torch.randn(count, REPLICATES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
