"""Target functions made from plain functions of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.functions import failures_of
from apportion.protocols.targets import Needs, Scores, Target

__all__ = ["LogitsFunction", "OfLogits"]

LogitsFunction = Callable[[Float[Tensor, "S T V"]], Tensor]
"""A function of the logits at the positions that predict the target; returns ``Float[S, T]`` or ``Float[S, 1 + T]``."""


class OfLogits:
    """A target function made from a plain function.

    Args:
        function: maps logits ``Float[S, T, V]`` to one value per token, ``Float[S, T]``, whose sum is the value of the
            whole target; or to the value of the whole target and one value per token, ``Float[S, 1 + T]``.
    """

    needs = Needs.LOGITS

    def __init__(self, function: LogitsFunction) -> None:
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Compute the values of S inputs.

        Raises:
            InputError: the function failed, or returned something else.
        """
        assert scores.logits is not None
        rows, tokens = scores.logits.shape[:2]
        shape = list(scores.logits.shape)
        # A batch that does not fit into memory is halved.
        with failures_of(
            self._function, "target_fn", lambda: f"logits of shape {shape}", unless=(torch.OutOfMemoryError,)
        ):
            found = self._function(scores.logits)
        if (
            not isinstance(found, Tensor)
            or found.is_complex()
            or tuple(found.shape) not in {(rows, tokens), (rows, 1 + tokens)}
        ):
            answer = (
                f"{found.dtype} {list(found.shape)}"
                if isinstance(found, Tensor)
                else f"{type(found).__name__} {found!r:.80}"
            )
            raise InputError(
                f"The function {self.name!r} returned {answer} for logits of shape {shape}; it must "
                f"return a value per token, {[rows, tokens]}, or values of the whole target and each token, "
                f"{[rows, 1 + tokens]}."
            )
        found = found.double()
        return found if found.shape[1] > tokens else torch.cat([found.sum(1, keepdim=True), found], dim=1)
