"""Value zeroing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BudgetError, counted, shown, unknown_name
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Inside
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.mixing import (
    AGGREGATORS,
    ROLLOUT,
    LayerRows,
    known_aggregator,
    rolled_out,
    token_scores,
)
from apportion_plugins.methods.module_names import Layers, checked_layers
from apportion_plugins.methods.picking import Picked, checked_pick, layers_left_out, per_layer
from apportion_plugins.methods.token_scores import Summary
from apportion_plugins.methods.value_modules import VALUE_MODULES
from apportion_plugins.methods.value_modules import value_modules as found_modules
from apportion_plugins.methods.which import Kind, before_targets, checked_kind, kind_of
from apportion_plugins.methods.zeroing import METRICS, PROOF, ValueZeros

__all__ = ["ValueZeroing"]


class ValueZeroing:
    """Value zeroing: how much each layer's output changes without the value vector of a token (Mohebbi et al. 2023).

    From "Quantifying Context Mixing in Transformers" (EACL 2023, arXiv 2301.12971). In one layer at a time, the value
    vector of one token is set to zero, and what the layer returns at each position is compared with what it returned
    before, with everything that the layer does after attention. The distances of a position are divided by their sum:
    its shares of context mixing. The value of a feature is the share of its tokens at the position before each target
    token, the mean over layers; that of the whole target is the mean over the target's tokens. The values are not
    signed, and do not depend on the target function. ``aggregate_layers="rollout"`` multiplies the shares of
    successive layers, without an identity matrix for the residual connection, which the layers' outputs contain
    already; so did the authors.

    Inseq sets distances below 1e-5 to zero, and takes the last layer's output after the model's last norm. This
    method does neither.

    ``extras`` has ``modules``, the names of the layers; ``module_values``, Float[layers, F], and
    ``module_token_values``, Float[layers, T, F], the values of each, which ``plot("layers")`` shows; ``special_share``
    and ``first_token_share``, the share of special tokens and tokens without a feature, and of the first token.
    """

    estimand = "context mixing"
    requires = frozenset({Capability.HIDDEN_STATES})
    family = "internals"
    cost = "one forward pass per token that is read"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        metric: str = "cosine",
        layers: Picked = "all",
        heads: Picked = "all",
        aggregate_layers: str = "mean",
        which: str | None = None,
        value_modules: Layers = None,
        normalize: str = "none",
    ) -> Estimate:
        """Zero the value vector of each token in turn, in all layers of one forward pass.

        Args:
            game: the game whose model mixes.
            budget: maximum number of evaluations; one per token that is read is needed, and four more.
            rng: unused, because nothing is drawn.
            metric: distance between states: ``"cosine"`` (1 − cosine similarity) or ``"euclidean"``.
            layers: the layers that count: ``"all"``, a number, a list of numbers, a range, a tuple (first, end), or a
                text: ``"10-20"`` with both ends, ``"10:20"`` without the last, like a slice. Negative numbers count
                from the end. In hybrid models, only layers that attend are counted.
            heads: the value heads that are zeroed, likewise; or a mapping from layers to heads. In models with fewer
                value heads than query heads, a value head serves a group of query heads.
            aggregate_layers: how layers become one: ``"mean"``, ``"max"``, ``"min"``, ``"sum"`` or ``"rollout"``.
            which: of an encoder–decoder model, values of the source as the decoder reads them (``"cross"``, the
                default) or as the source reads itself (``"encoder"``: the mean over its positions, the same for each
                target token), or values of the target (``"decoder"``, which needs ``attribute_generated=True``).
            value_modules: names of the modules that return value vectors, or a pattern such as
                ``"model.layers.*.self_attn.v_proj"``, if they are not found.
            normalize: what values are divided by: ``"none"``, the sum over features (``"features"``), or over all
                tokens (``"all"``).

        Raises:
            InputError: an option is out of range, or does not fit the model.
            CapabilityError: the value vectors are not found, or not proven to be these.
            BudgetError: the budget is smaller.
        """
        if not isinstance(metric, str) or metric not in METRICS:
            raise unknown_name("metric", metric if isinstance(metric, str) else shown(metric), METRICS)
        checked_pick("layers", layers)
        checked_pick("heads", heads, mapping=True)
        rollout = known_aggregator("layers", aggregate_layers, rollout=True) == ROLLOUT
        summary, asked = Summary("sum", normalize), checked_kind(which)
        named = checked_layers(value_modules, VALUE_MODULES)
        inside = game.inside()
        kind = kind_of(asked, inside, rollout=rollout)
        modules = found_modules(inside.modules(), kind, named, joint=inside.joint)
        picked = per_layer(heads, layers, [one.layer for one in modules])
        last = None if rollout or kind == "encoder" else len(inside.targets[0])
        zeros = ValueZeros(inside, [modules[n] for n in picked], list(picked.values()), METRICS[metric], last)
        _check_budget(budget, inside, kind)
        found = _rows(zeros, inside, kind, aggregate_layers)
        scores = token_scores(found.rows, inside, source=found.source)
        extras = found.extras(summary, inside, game.n_features)
        return summary.estimate(
            scores,
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            signed=False,
            unit="share",
            extras=extras,
            notes=(*layers_left_out([one.layer for one in modules]), *_notes(zeros, inside)),
        )


def _check_budget(budget: int | None, inside: Inside, kind: Kind) -> None:
    """Refuse a budget that is too small.

    Raises:
        BudgetError: it is.
    """
    prompt, read = len(inside.prompt_ids), len(inside.targets[0]) - 1
    tokens = prompt + read if inside.joint else prompt if kind != "decoder" else 1 + read
    if budget is not None and budget < tokens + PROOF:
        raise BudgetError(
            f"Value zeroing of {counted(tokens, 'token')} takes {tokens + PROOF} evaluations, and the budget is "
            f"{budget}. Raise it, or use method='attention', which takes one."
        )


def _rows(zeros: ValueZeros, inside: Inside, kind: Kind, aggregate: str) -> LayerRows:
    """Shares of context mixing, layer by layer and all together."""
    zeros.prove()
    tokens = len(inside.prompt_ids) if kind == "cross" else zeros.length
    shares = _shares(zeros.changes(range(tokens)), causal=kind == "decoder")
    targets = len(inside.targets[0])
    layers = before_targets(shares, kind, targets)
    if aggregate == ROLLOUT:
        rows = before_targets(rolled_out(list(shares), residual=False)[None], kind, targets)[0]
    else:
        rows = AGGREGATORS[aggregate](layers)
    return LayerRows(tuple(one.layer for one in zeros.modules), tuple(layers), rows, source=kind != "decoder")


def _shares(changes: Float[Tensor, "M S I"], *, causal: bool) -> Float[Tensor, "M I S"]:
    """Changes at each position, divided by their sum; 0 where nothing changes."""
    found = changes.transpose(1, 2)
    if causal:  # later tokens change nothing but the rounding
        found = found.tril(found.shape[2] - found.shape[1])
    total = found.sum(-1, keepdim=True)
    return torch.where(total > 0, found / total, 0.0)


def _notes(zeros: ValueZeros, inside: Inside) -> list[str]:
    notes = []
    if zeros.dtype.itemsize < 4:
        name = str(zeros.dtype).removeprefix("torch.")
        notes.append(f"the model computes in {name}; changes below its rounding are lost or exaggerated")
    if len(inside.targets) > 1:
        notes.append("context mixing says nothing about a contrast; the values are those before the target's tokens")
    return notes
