"""Code of a user in a model: hooks, replaced forwards, classes and functions that no known package defines."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import nn

__all__ = ["KNOWN_PACKAGES", "is_known", "own_forward", "user_hooks"]

KNOWN_PACKAGES = sys.stdlib_module_names | {
    "torch", "transformers", "peft", "accelerate", "torchao", "bitsandbytes", "huggingface_hub", "tokenizers", "numpy",
}  # fmt: skip
"""Python's own modules, and packages that models are made with."""
OBSERVERS = ("transformers.utils.output_capturing", "apportion_backends.torch.edits")
"""Modules whose hooks change nothing. Those of transformers stay on a model that was once asked for hidden states."""


COMPILED = ("torch.fx.", "torch.jit.")
"""Modules of classes that carry code of others."""


def is_known(thing: Any) -> bool:
    """True for what Python or a package that models are made with defines: nobody changes its code."""
    if isinstance(thing, functools.partial):
        return is_known(thing.func)
    function = thing.__func__ if isinstance(thing, MethodType) else thing
    if isinstance(function, FunctionType):
        # Not __module__, which functools.wraps copies.
        module = function.__globals__.get("__name__", "")
    else:
        module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0] in KNOWN_PACKAGES and not module.startswith(COMPILED)


def user_hooks(module: nn.Module) -> Iterator[tuple[int, Any]]:
    """Forward hooks of a module and their keys, without those of transformers that only observe."""
    for key, hook in (*module._forward_hooks.items(), *module._forward_pre_hooks.items()):
        if getattr(hook, "__module__", None) not in OBSERVERS:
            yield key, hook


def own_forward(module: nn.Module) -> bool:
    """True if a user replaced the forward on the object; accelerate's, which moves weights, does not count."""
    forward: Any = vars(module).get("forward")
    if isinstance(forward, functools.partial):
        forward = forward.func
    return forward is not None and not (is_known(forward) and hasattr(module, "_hf_hook"))
