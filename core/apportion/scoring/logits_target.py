"""Target functions made from plain functions of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import ApportionError, InputError
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
        try:
            found = self._function(scores.logits)
        except (ApportionError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise InputError(
                f"The function {self.name!r} given as target_fn failed on logits of shape {list(scores.logits.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if (
            not isinstance(found, Tensor)
            or found.is_complex()
            or tuple(found.shape) not in {(rows, tokens), (rows, 1 + tokens)}
        ):
            shape = (
                f"{found.dtype} {list(found.shape)}"
                if isinstance(found, Tensor)
                else f"{type(found).__name__} {found!r:.80}"
            )
            raise InputError(
                f"The function {self.name!r} returned {shape} for logits of shape {list(scores.logits.shape)}; it must "
                f"return a value per token, {[rows, tokens]}, or values of the whole target and each token, "
                f"{[rows, 1 + tokens]}."
            )
        found = found.double()
        return found if found.shape[1] > tokens else torch.cat([found.sum(1, keepdim=True), found], dim=1)
