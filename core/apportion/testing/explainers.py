"""Explainers of tiny models."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.explainer import Explainer
from apportion.testing import tiny

__all__ = ["tiny_explainer"]


def tiny_explainer(
    *, plugins: Sequence[object] = (), backend: object = "auto", family: str = "llama", adds_start: bool = False
) -> Explainer:
    """Make an explainer of a tiny random model in float64; close it after use.

    Args:
        plugins: objects or modules with hooks.
        backend: a name or a ``Backend``.
        family: one of ``tiny.FAMILIES``.
        adds_start: the tokenizer adds a start token before prompts.
    """
    pair = (tiny.model(family), tiny.tokenizer(adds_start=adds_start))
    return Explainer(pair, backend=backend, plugins=plugins, progress=False)  # type: ignore[arg-type]
