"""What was found out about a model, for as long as its structure stays as it was."""

from __future__ import annotations

from transformers import PreTrainedModel

from apportion_backends.torch.guard import Doubt
from apportion_backends.torch.probe import Traits, probe
from apportion_backends.torch.state import ModelState, observe

__all__ = ["StructureLog"]

REMEMBERED = 8
"""Structures whose traits are remembered, so that switching between adapters probes each of them once."""


class StructureLog:
    """Traits of a model by its structure.

    Args:
        model: the model, which was just probed.
        traits: what the probe found.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self._known: list[tuple[ModelState, Traits]] = [(observe(model), traits)]
        self._current: ModelState | None = None

    def look(self, model: PreTrainedModel) -> tuple[Traits, Doubt, bool]:
        """Traits of the model as it is, how much to doubt them, and whether its structure is new.

        Raises:
            ModelError: what was changed has made the model unfit for scoring.
        """
        state = observe(model)
        before, self._current = self._current, state
        traits = next((traits for known, traits in self._known if known.parts == state.parts), None)
        if traits is None:
            self._current = before
            traits = probe(model)
            # Some models set attributes in their first forward pass.
            state = self._current = observe(model)
            self._known = [*self._known[1 - REMEMBERED :], (state, traits)]
        doubt: Doubt = "always" if state.opaque else "none"
        if not state.opaque and before is not None and before.versions != state.versions:
            doubt = "once"
        return traits, doubt, before is None or before.parts != state.parts
