"""Attention weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Game
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Inside, Trace
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.mixing import (
    AGGREGATORS,
    ROLLOUT,
    LayerRows,
    known_aggregator,
    read_only,
    rolled_out,
    token_scores,
)
from apportion_plugins.methods.picking import Picked, checked_pick, heads_of, layers_left_out, per_layer
from apportion_plugins.methods.token_scores import Summary
from apportion_plugins.methods.which import Kind, before_targets, checked_kind, kind_of

__all__ = ["Attention"]

SINK = 0.5
"""Share of the weight on the first token from which on a note points it out."""
WHOLE = 0.99
"""Sum of a row of weights below which some of it goes to no token; half precision rounds less than this."""


class Attention:
    """Attention weights: how much the position before each target token attends to each token of the prompt.

    The value of a feature is the weight of its tokens; that of the whole target is the mean over the target's tokens,
    so that weights remain shares. Attention says where information may flow from, not what it does to the score: the
    weights are not signed, and do not depend on the target function. They are those that the model multiplies its
    values with; each is checked. ``aggregate_layers="rollout"`` multiplies the layers, each as 0.5 A + 0.5 I (Abnar and
    Zuidema 2020, arXiv 2005.00928). Inseq's attention has the same weights, layer by layer and head by head.

    ``extras`` has ``modules``, the names of the layers; ``module_values``, Float[layers, F], and
    ``module_token_values``, Float[layers, T, F], the values of each, which ``plot("layers")`` shows; ``special_share``
    and ``first_token_share``, the weight that falls on special tokens and tokens without a feature, and on the first
    token.
    """

    estimand = "attention weight"
    requires = frozenset({Capability.ATTENTIONS})
    family = "internals"
    cost = "one forward pass"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        layers: Picked = "all",
        heads: Picked = "all",
        aggregate_layers: str = "mean",
        aggregate_heads: str = "mean",
        which: str | None = None,
        normalize: str = "none",
        keep_heads: bool = False,
    ) -> Estimate:
        """Read the weights of one forward pass.

        Args:
            game: the game whose model attends.
            budget: maximum number of evaluations; one is needed.
            rng: unused, because nothing is drawn.
            layers: the layers that count: ``"all"``, a number, a list of numbers, a range, a tuple (first, end), or a
                text: ``"10-20"`` with both ends, ``"10:20"`` without the last, like a slice. Negative numbers count
                from the end. In hybrid models, only layers that attend are counted.
            heads: the heads that count, likewise; or a mapping from layers to heads.
            aggregate_layers: how layers become one: ``"mean"``, ``"max"``, ``"min"``, ``"sum"`` or ``"rollout"``.
            aggregate_heads: how the heads of a layer become one: ``"mean"``, ``"max"``, ``"min"`` or ``"sum"``.
            which: of an encoder–decoder model, the attention to the source (``"cross"``, the default), of the source to
                itself (``"encoder"``: the mean over its positions, the same for each target token), or of the target
                to itself (``"decoder"``, which needs ``attribute_generated=True``).
            normalize: what values are divided by: ``"none"``, the sum over features (``"features"``), or over all
                tokens (``"all"``).
            keep_heads: keep the weights of each head in ``extras["attentions"]``, Float[layers, heads, T, F].

        Raises:
            InputError: an option is out of range, or does not fit the model.
            CapabilityError: the model's attention cannot be observed.
        """
        options = _Options(layers, heads, aggregate_layers, aggregate_heads)
        summary, asked = Summary("sum", normalize), checked_kind(which)
        true_or_false("keep_heads", keep_heads)
        inside = game.inside()
        kind = kind_of(asked, inside, rollout=options.rollout)
        # A rollout multiplies the rows of all tokens.
        trace = inside.trace(attentions=True, last=None if options.rollout else len(inside.targets[0]))
        found, by_head = _read(trace, kind, inside, options)
        prefix = _read(trace, "decoder", inside, options)[0].rows if kind == "cross" and trace.attentions else None
        scores = token_scores(found.rows, inside, source=found.source, prefix=prefix)
        extras = found.extras(summary, inside, game.n_features)
        if keep_heads:
            extras["attentions"] = _heads_kept(by_head, found, summary, inside, game.n_features)
        return summary.estimate(
            scores,
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            signed=False,
            unit="weight",
            extras=extras,
            notes=(*layers_left_out(trace.attention_modules), *_notes(found, by_head, inside, kind)),
        )


@dataclass(frozen=True, slots=True)
class _Options:
    """Options of the method, checked as far as they can be without the model."""

    layers: Picked
    heads: Picked
    aggregate_layers: str
    aggregate_heads: str

    def __post_init__(self) -> None:
        checked_pick("layers", self.layers)
        checked_pick("heads", self.heads, mapping=True)
        known_aggregator("layers", self.aggregate_layers, rollout=True)
        known_aggregator("heads", self.aggregate_heads)

    @property
    def rollout(self) -> bool:
        """Layers are multiplied."""
        return self.aggregate_layers == ROLLOUT


def _read(
    trace: Trace, kind: Kind, inside: Inside, options: _Options
) -> tuple[LayerRows, list[Float[Tensor, "H T S"]]]:
    """The chosen weights of the positions before each target token: heads made one, and head by head."""
    every = {"cross": trace.cross_attentions, "encoder": trace.encoder_attentions, "decoder": trace.attentions}[kind]
    names = _names(trace, kind, len(every))
    picked = per_layer(options.heads, options.layers, names)
    whole = [every[number][heads_of(heads, len(every[number]), names[number])] for number, heads in picked.items()]
    combine, targets = AGGREGATORS[options.aggregate_heads], len(inside.targets[0])
    heads = [before_targets(weights, kind, targets) for weights in whole]
    layers = [combine(weights) for weights in heads]
    if options.rollout:
        flow = rolled_out([combine(weights) for weights in whole], residual=True)
        rows = before_targets(flow[None], kind, targets)[0]
    else:
        rows = AGGREGATORS[options.aggregate_layers](torch.stack(layers))
    return LayerRows(tuple(names[n] for n in picked), tuple(layers), rows, source=kind != "decoder"), heads


def _names(trace: Trace, kind: Kind, count: int) -> tuple[str, ...]:
    """Names of the layers; numbers where the trace has none."""
    if kind == "decoder" and len(trace.attention_modules) == count:
        return trace.attention_modules
    return tuple(f"{kind}.{number}" for number in range(count))


def _heads_kept(
    heads: Sequence[Float[Tensor, "H T S"]], chosen: LayerRows, summary: Summary, inside: Inside, n_features: int
) -> np.ndarray:
    """Weights of each head, as Float[layers, heads, T, F]."""
    if len({len(one) for one in heads}) > 1:
        raise InputError("keep_heads=True needs the same number of heads in each layer; choose as many in each.")

    def of_features(rows: Float[Tensor, "T S"]) -> Float[Tensor, "T F"]:
        scores = token_scores(rows, inside, source=chosen.source)
        return summary.values(scores, inside, n_features)[:, 1:].T

    return read_only(torch.stack([torch.stack([of_features(rows) for rows in one]) for one in heads]))


def _notes(found: LayerRows, heads: Sequence[Float[Tensor, "H T S"]], inside: Inside, kind: Kind) -> list[str]:
    """Notes on the weights."""
    notes = []
    first, kept = found.first_token_share, float(torch.stack([rows.sum(-1).mean() for rows in heads]).mean())
    apart = inside.special[0] or inside.feature_of[0] is None  # a note on special tokens says the same
    if first > SINK and not apart and kind == "decoder" and inside.joint:
        notes.append(
            f"{first:.0%} of the weight falls on the first token, as in many models whatever it says (an attention "
            "sink)"
        )
    if kept < WHOLE:
        notes.append(
            f"{1 - kept:.0%} of the attention goes to no token, because this model has learned to attend to nothing "
            "(attention sinks without a token)"
        )
    if len(inside.targets) > 1:
        notes.append("attention weights say nothing about a contrast; they are those before the target's tokens")
    return notes
