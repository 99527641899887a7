"""The base of all methods."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["Attribution"]


class Attribution:
    """A method, made with a model; it is wrapped by ``LLMAttribution`` or ``LLMGradientAttribution``.

    Args:
        forward_func: the language model.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self.forward_func = forward_func

    def attribute_future(self, *args: Any, **kwargs: Any) -> Any:
        """Not implemented.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def has_convergence_delta(self) -> bool:
        """Return whether scores come with a convergence delta: whether the method integrates."""
        return False

    @classmethod
    def get_name(cls) -> str:
        """Return the name in words, such as ``"Feature Ablation"``."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__)
