"""Recognition of target functions that read texts."""

from __future__ import annotations

from apportion.hooks.manager import installed_plugins

__all__ = ["reads_texts"]


def reads_texts(target_fn: str) -> bool:
    """True if a target function reads texts, which the model writes although the target is given. Imports torch.

    Raises:
        UnknownNameError: there is no such function.
    """
    from apportion.protocols.targets import Needs

    return getattr(installed_plugins()["targets"].get(target_fn).load(), "needs", None) is Needs.TEXT
