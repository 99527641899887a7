"""Access to the model's internals, with evaluations counted like any others of the game."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, InputError, ScoreError
from apportion.game.token_view import Charge, features_of_tokens, text_only
from apportion.protocols.inside import Inside, Trace

if TYPE_CHECKING:
    from apportion.protocols.backend import Session
    from apportion.protocols.request import Request
    from apportion.scoring.readout import Readout

__all__ = ["inside_of", "require_gradient"]


def inside_of(
    request: Request,
    session: Session,
    *,
    charge: Charge,
    embeddings: Callable[[tuple[int, ...]], Float[Tensor, "P D"]],
    values: Callable[[Float[Tensor, "B P D"]], Float[Tensor, "B K"]],
    trace: Callable[[tuple[int, ...], bool, bool, tuple[str, ...]], Trace],
) -> Inside:
    """Access to the model's internals for the full prompt of a request.

    Args:
        request: the run's request.
        session: session whose tokenizer encoded the prompt.
        charge: counts evaluations before they are made.
        embeddings: returns the embeddings of tokens.
        values: returns the values of prompts given by their embeddings.
        trace: returns internals of one forward pass over tokens.

    Raises:
        CapabilityError: tokens cannot be matched with features.
    """
    ids = text_only(request.renderer.full())

    def counted_values(embedded: Float[Tensor, "B P D"]) -> Float[Tensor, "B K"]:
        shape = list(embedded.shape) if isinstance(embedded, Tensor) else type(embedded).__name__
        if not isinstance(embedded, Tensor) or embedded.ndim != 3 or embedded.shape[1] != len(ids) or not len(embedded):
            raise InputError(f"values() takes embeddings of shape [B, {len(ids)}, D], one per token, not {shape}.")
        if not embedded.is_floating_point():
            raise InputError(f"values() takes floating-point embeddings, not {embedded.dtype}.")
        charge(len(embedded))
        found = values(embedded)
        if not bool(torch.isfinite(found).all()):
            raise ScoreError(
                f"The value of a prompt given by its embeddings is not finite: {found[:, 0].tolist()}. Check the "
                "embeddings, and the model's weights and dtype."
            )
        return found

    def counted_trace(*, hidden: bool = False, attentions: bool = False, modules: Sequence[str] = ()) -> Trace:
        names = (modules,) if isinstance(modules, str) else tuple(modules)
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"modules={modules!r:.80} must be names of modules.")
        charge(1)
        return trace(ids + request.target.ids[:-1], hidden, attentions, names)

    return Inside(
        prompt_ids=ids,
        feature_of=features_of_tokens(request.adapter, session.tokenizer, ids),
        embeddings=lambda: embeddings(ids),
        values=counted_values,
        trace=counted_trace,
    )


def require_gradient(readout: Readout, name: str) -> None:
    """Reject a target function whose values have no gradient with respect to the logits, checked on random logits.

    Args:
        readout: readout with the target function.
        name: name of the target function.

    Raises:
        CapabilityError: the target function has no gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        draw = torch.Generator().manual_seed(0)
        wide = readout.vocabulary or 1 + max(max(ids) for ids in readout.targets)
        logits = [torch.randn(1, len(ids), wide, generator=draw, requires_grad=True) for ids in readout.targets]
        scores = [readout.scores_of(part, ids) for part, ids in zip(logits, readout.targets, strict=True)]
        other = torch.randn(logits[0].shape, generator=draw)
        reference = readout.scores_of(other, readout.targets[0]) if readout.has_reference else None
        values = readout.applied(*scores, reference=reference)
        slopes = torch.autograd.grad(values.sum(), logits, allow_unused=True) if values.requires_grad else ()
        found = any(slope is not None for slope in slopes)
    if not found:
        raise CapabilityError(
            f"The target function {name!r} has no gradient: its values are counts, or are detached from the logits "
            "(detach, argmax, comparisons). Use a differentiable one such as 'log_prob' or 'prob', or a perturbation "
            "method."
        )
