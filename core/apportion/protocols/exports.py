"""Exports of models to files that a backend runs without the model's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from apportion.protocols.backend import Backend
from apportion.protocols.model import ModelSpec

__all__ = ["Export", "ExportBackend"]


@dataclass(frozen=True, slots=True)
class Export:
    """An exported model.

    Attributes:
        folder: the folder; ``Explainer(folder)`` opens it.
        precision: numbers that the graph computes with, such as ``"fp32"``.
        bytes: size of all files.
        largest_difference: largest difference from the model in nats, over the rows that were compared.
        compared_rows: number of these rows.
        fidelity: agreement of attributions with those of the model; empty if the precision is that of the model.
    """

    folder: Path
    precision: str
    bytes: int
    largest_difference: float
    compared_rows: int
    fidelity: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class ExportBackend(Backend, Protocol):
    """A backend that can export models.

    Options of ``export`` are further keyword-only parameters, as those of ``load`` are.
    """

    def export(self, spec: ModelSpec, out: Path, *, say: Callable[[str], None], precision: str = "fp32") -> Export:
        """Export a model to a folder that is empty or does not exist.

        Args:
            spec: the model.
            out: the folder.
            say: called with a sentence at the beginning of each step.
            precision: numbers that the graph computes with.

        Raises:
            ModelError: the model cannot be exported, or the graph gives other numbers.
            InputError: an option has a value that it cannot have, or the folder holds something.
        """
        ...
