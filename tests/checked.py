"""An explainer whose runs are compared with one-row forwards, for tests of models that are changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

import apportion as ap
from apportion.protocols.row import Row
from apportion.testing import reference, tiny

__all__ = ["PROMPT", "TARGET", "WINDOWS_HAVE_MASKS", "Checked", "with_states"]

WINDOWS_HAVE_MASKS = tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23)
"""Older versions make a mask for a sliding window that hides nothing, and such rows are not packed."""
PROMPT, TARGET = "ab cd ef", " zy"


def with_states(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A module's output with changed states; these come first where it returns more."""
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)


class Recorder:
    """Records every row that is scored, with its log-probabilities."""

    def __init__(self) -> None:
        self.scores: dict[Row, torch.Tensor] = {}

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, batch: ap.ScoringBatch) -> Iterator[None]:
        found = yield
        self.scores |= {row: part[: len(row.target)] for row, part in zip(batch.rows, found, strict=True)}
        return found


class Checked:
    """An explainer whose every run is compared with one-row forwards of the model."""

    def __init__(self, model: PreTrainedModel, scored_by: nn.Module | None = None, **options: Any) -> None:
        self.model, self.recorder = model, Recorder()
        pair = (scored_by or model, tiny.tokenizer())
        self.explainer = ap.Explainer(pair, plugins=[self.recorder], progress=False, **options)

    def run(self, prompt: str = PROMPT, **arguments: Any) -> ap.Attribution:
        self.recorder.scores.clear()
        found = self.explainer.attribute(prompt, TARGET, **({"method": "ablation"} | arguments))
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        tolerance = 1e-9 if self.model.dtype == torch.float64 else 1e-4
        for row, ours in self.recorder.scores.items():
            expected = reference.log_probs(self.model, row.prompt, row.target)
            assert torch.allclose(ours.double(), expected, atol=tolerance, rtol=0), (ours, expected)
        for module in training:
            module.training = True
        return found
