"""What was found out about a model, for as long as its structure stays as it was."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from apportion_backends.torch.guard import Doubt
from apportion_backends.torch.probe import Traits, probe
from apportion_backends.torch.state import ModelState, observe

__all__ = ["Findings", "StructureLog"]

REMEMBERED = 8
"""Structures whose traits are remembered, so that switching between adapters probes each of them once."""


OWN_CODE = "the model has code of your own ({}), which may look at places of tokens; rows were not packed"


@dataclass(frozen=True, slots=True)
class Findings:
    """What holds for a model as it is.

    Attributes:
        traits: the shortcuts that it allows.
        doubt: how much to doubt them.
        changed: its structure is not that of the last look.
        notes: sentences for results.
    """

    traits: Traits
    doubt: Doubt
    changed: bool
    notes: tuple[str, ...]


class StructureLog:
    """Traits of a model by its structure.

    Args:
        model: the model, which was just probed.
        traits: what the probe found.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self._known: list[tuple[ModelState, Traits]] = [(observe(model), traits)]
        self._current: ModelState | None = None

    def look(self, model: PreTrainedModel) -> Findings:
        """What holds for the model as it is.

        Raises:
            ModelError: what was changed has made the model unfit for scoring.
        """
        state = observe(model)
        traits = next((traits for known, traits in self._known if known.parts == state.parts), None)
        if traits is None:
            traits = probe(model)
            # Some models set attributes in their first forward pass.
            state = observe(model)
            self._known = [*self._known[1 - REMEMBERED :], (state, traits)]
        before, self._current = self._current, state
        changed = before is None or before.parts != state.parts
        if state.opaque:
            return Findings(
                traits.without_places(), "always", changed, (*traits.notes(), OWN_CODE.format(state.opaque))
            )
        weights_changed = before is not None and before.versions != state.versions
        return Findings(traits, "once" if weights_changed else "none", changed, traits.notes())
