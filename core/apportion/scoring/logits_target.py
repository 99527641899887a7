"""Any function of logits as a target function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import ApportionError, InputError
from apportion.protocols.targets import Needs, Scores, Target

__all__ = ["LogitsFunction", "OfLogits"]

LogitsFunction = Callable[[Float[Tensor, "S T V"]], Tensor]
"""From logits at the positions that predict the target to ``Float[S, T]``, or ``Float[S, 1 + T]``."""


class OfLogits:
    """A target function made of a plain function.

    Args:
        function: from logits ``Float[S, T, V]`` to one value for each token, ``Float[S, T]``, whose sum stands for the
            whole target; or to the value of the whole target and one for each token, ``Float[S, 1 + T]``.
    """

    needs = Needs.LOGITS

    def __init__(self, function: LogitsFunction) -> None:
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Values of S inputs.

        Raises:
            InputError: the function gave something else.
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
                f"The function {self.name!r} gave {shape} for logits of shape {list(scores.logits.shape)}; it must "
                f"give a value for each token, {[rows, tokens]}, or for the whole target and each token, "
                f"{[rows, 1 + tokens]}."
            )
        found = found.double()
        return found if found.shape[1] > tokens else torch.cat([found.sum(1, keepdim=True), found], dim=1)
