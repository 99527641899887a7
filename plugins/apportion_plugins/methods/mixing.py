"""Weights with which positions read other tokens, layer by layer, and how they become scores of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import shown, unknown_name
from apportion.protocols.inside import Inside
from apportion_plugins.methods.token_scores import Summary, TokenScores

__all__ = ["AGGREGATORS", "ROLLOUT", "LayerRows", "known_aggregator", "read_only", "rolled_out", "token_scores"]

AGGREGATORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda parts: parts.mean(0),
    "max": lambda parts: parts.amax(0),
    "min": lambda parts: parts.amin(0),
    "sum": lambda parts: parts.sum(0),
}
"""How several layers or heads become one, by name."""

ROLLOUT = "rollout"
"""The aggregator of layers that multiplies them."""


def known_aggregator(name: str, given: object, *, rollout: bool = False) -> str:
    """Check the name of an aggregator.

    Raises:
        UnknownNameError: there is none of this name.
    """
    known = (*AGGREGATORS, *((ROLLOUT,) if rollout else ()))
    if not isinstance(given, str) or given not in known:
        raise unknown_name(f"aggregator of {name}", given if isinstance(given, str) else shown(given), known)
    return given


def rolled_out(layers: Sequence[Float[Tensor, "L L"]], *, residual: bool) -> Float[Tensor, "L L"]:
    """Multiply the weights of successive layers, so that a row says what flows in from the bottom.

    Args:
        layers: weights of each layer, the first one first.
        residual: half of what a layer reads goes around its weights A: ``0.5 A + 0.5 I``.
    """
    flow = torch.eye(len(layers[0]), dtype=torch.float64)
    for weights in layers:
        step = weights.to("cpu", torch.float64)
        flow = (0.5 * (step + torch.eye(len(step), dtype=torch.float64)) if residual else step) @ flow
    return flow


@dataclass(frozen=True, slots=True)
class LayerRows:
    """Weights with which the position before each target token reads S tokens.

    Attributes:
        names: names of the M layers.
        layers: weights in each layer.
        rows: one for all layers.
        source: the tokens are those of an encoder's source, not those that a decoder reads.
    """

    names: tuple[str, ...]
    layers: tuple[Float[Tensor, "T S"], ...]
    rows: Float[Tensor, "T S"]
    source: bool = False

    @property
    def first_token_share(self) -> float:
        """Share of all weights that falls on the first token of the prompt, or of the source.

        Sums or extremes of layers are not shares themselves, so it is relative to all that the rows add up to.
        """
        total = float(self.rows.sum())
        return float(self.rows[:, 0].sum()) / total if total else 0.0

    def extras(self, summary: Summary, inside: Inside, n_features: int) -> dict[str, Any]:
        """The values of each layer, in the form of methods at layers.

        These are ``modules``, the names; ``module_values``, Float[M, F], for the whole target; and
        ``module_token_values``, Float[M, T, F]. ``first_token_share`` is the share of the first token.
        """
        scores = [token_scores(rows, inside, source=self.source) for rows in self.layers]
        values = torch.stack([summary.values(one, inside, n_features).T for one in scores])
        return {
            "modules": list(self.names),
            "module_values": read_only(values[:, 0]),
            "module_token_values": read_only(values[:, 1:]),
            "first_token_share": self.first_token_share,
        }


def token_scores(
    rows: Float[Tensor, "T S"], inside: Inside, *, source: bool = False, prefix: Float[Tensor, "T S"] | None = None
) -> TokenScores:
    """Scores of tokens: for the whole target the mean over its tokens, then those of each target token.

    Args:
        rows: weights with which the position before each target token reads tokens.
        inside: the model's internals.
        source: the tokens are those of an encoder's source, not those that a decoder reads.
        prefix: weights for what the decoder reads, if ``rows`` are for the source; ``None`` for none.
    """
    tokens, read = len(inside.prompt_ids), len(inside.targets[0]) - 1
    prompt = rows[:, :tokens] if source or inside.joint else rows.new_zeros(len(rows), tokens)
    if all(owner is None for owner in inside.generated_feature_of):
        return TokenScores(_with_mean(prompt))
    decoder = prefix if source else rows
    # A decoder's start tokens come before those of the target.
    own = rows.new_zeros(len(rows), read) if decoder is None else decoder[:, decoder.shape[1] - read :]
    return TokenScores(_with_mean(prompt), _with_mean(own))


def read_only(found: Tensor) -> np.ndarray:
    """An array for ``extras``, in fp32."""
    array: np.ndarray = found.to("cpu", torch.float32).numpy()
    array.setflags(write=False)
    return array


def _with_mean(rows: Float[Tensor, "T X"]) -> Float[Tensor, "O X 1"]:
    wide = rows.to("cpu", torch.float64)
    return torch.cat([wide.mean(0, keepdim=True), wide])[:, :, None]
