"""Kinds of attention: of a decoder-only model, and of the halves of an encoder–decoder model."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, shown, unknown_name
from apportion.protocols.inside import Inside

__all__ = ["KINDS", "Kind", "before_targets", "checked_kind", "kind_of"]

Kind = Literal["cross", "encoder", "decoder"]
KINDS: tuple[Kind, ...] = ("cross", "encoder", "decoder")
"""The attention of a decoder to the source, of the source to itself, and of a decoder to what it reads: that of a
decoder-only model."""


def checked_kind(which: object) -> Kind | None:
    """Check the option ``which``.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if which is None:
        return None
    for kind in KINDS:
        if which == kind:
            return kind
    raise unknown_name("kind of attention", which if isinstance(which, str) else shown(which), KINDS)


def kind_of(which: Kind | None, inside: Inside, *, rollout: bool) -> Kind:
    """The kind of attention that is read from a model.

    Args:
        which: the kind that the user asks for; ``None`` for the model's default.
        inside: the model's internals.
        rollout: layers are multiplied.

    Raises:
        InputError: the model has none of this kind, no feature belongs to what it reads, or it cannot be multiplied.
    """
    if inside.joint:
        if which is not None:
            raise InputError(
                f"which={which!r} is for encoder–decoder models; this model reads prompt and target as one sequence, "
                "and has one kind of attention. Leave which out."
            )
        return "decoder"
    kind = which or "cross"
    if kind == "decoder" and all(owner is None for owner in inside.generated_feature_of):
        raise InputError(
            "which='decoder' is the attention of the target to itself, and only the prompt has features. Pass "
            "attribute_generated=True, or leave which out."
        )
    if kind == "cross" and rollout:
        raise InputError(
            "aggregate_layers='rollout' multiplies the attention of a sequence to itself, and which='cross' is to "
            "another one. Pass which='encoder' or which='decoder' with it."
        )
    return kind


def before_targets(weights: Float[Tensor, "H L S"], kind: Kind, targets: int) -> Float[Tensor, "H T S"]:
    """Rows of the positions before each target token; of an encoder, the mean over its positions for each of them."""
    if kind == "encoder":
        return weights.mean(1, keepdim=True).expand(-1, targets, -1)
    return weights[:, weights.shape[1] - targets :]
