"""Random changes to a model between runs: the next run gives the numbers of the model as it is, with a cache too."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import apportion as ap
from apportion.protocols.row import Row
from apportion.testing import reference, tiny
from changes import Adapted, Scaled, times
from checked import PROMPT, TARGET, Checked

FAMILIES = ("llama", "gpt2", "qwen3", "mixtral", "gemma3", "bloom")
SEQUENCES, CHANGES = 84, 2
"""Sequences of changes for each family (504 in all), and changes in a sequence."""


class Fuzzer:
    """Changes a model at random; every change leaves it a causal language model."""

    def __init__(self, model: PreTrainedModel, seed: int) -> None:
        self.model, self.random = model, random.Random(seed)
        self.handles: list[Any] = []
        self.hooks: list[Scaled] = []
        self.done: list[str] = []

    def change(self) -> None:
        kinds = [
            self.weights_in_place, self.weights_exchanged, self.module_swapped, self.forward_replaced, self.hook_added,
            self.hook_removed, self.hook_changed, self.adapter_added, self.adapter_switched, self.attribute_changed,
            self.cast, self.resized, self.mode_changed,
        ]  # fmt: skip
        kind = self.random.choice(kinds)
        self.done.append(kind.__name__)
        kind()

    def layer(self) -> tuple[nn.Module, str]:
        """A layer with a matrix, and where it hangs; not the embeddings, which may be tied to the head."""
        layers = [
            (module, name)
            for module in self.model.base_model.modules()
            for name, child in module.named_children()
            if not isinstance(child, nn.Embedding) and getattr(getattr(child, "weight", None), "ndim", 0) == 2
        ]
        return self.random.choice(layers)

    def weights_in_place(self) -> None:
        with torch.no_grad():
            self.random.choice([p for p in self.model.parameters() if p.ndim > 1]).mul_(1.3)

    def weights_exchanged(self) -> None:
        parent, name = self.layer()
        weight = getattr(parent, name).weight
        weight.data = weight.data * 0.7

    def module_swapped(self) -> None:
        parent, name = self.layer()
        other = copy.deepcopy(getattr(parent, name))
        with torch.no_grad():
            other.weight.mul_(-1.1)
        setattr(parent, name, other)

    def forward_replaced(self) -> None:
        parent, name = self.layer()
        layer = getattr(parent, name)
        if "forward" in vars(layer):
            del layer.forward
            return
        layer.forward = times(layer.forward, self.random.choice([0.5, 1.5]))

    def hook_added(self) -> None:
        parent, name = self.layer()
        start = self.random.randrange(4)
        place = self.random.choice([slice(None), slice(start, start + 1), slice(-1, None)])
        # Gates of experts return scores of tokens, which may stand in one row for the whole batch.
        hook = Scaled(
            self.random.choice([0.5, 2.0]), slice(None) if self.model.config.model_type == "mixtral" else place
        )
        self.hooks.append(hook)
        self.handles.append(getattr(parent, name).register_forward_hook(hook))

    def hook_removed(self) -> None:
        if self.handles:
            self.handles.pop().remove()

    def hook_changed(self) -> None:
        if self.hooks:
            self.random.choice(self.hooks).factor *= 1.5

    def adapter_added(self) -> None:
        parent, name = self.layer()
        if self.model.config.model_type != "mixtral":  # its gates return tuples
            setattr(parent, name, Adapted(getattr(parent, name)).to(self.model.dtype))

    def adapter_switched(self) -> None:
        for module in self.model.modules():
            if isinstance(module, Adapted):
                module.active = 1 - module.active

    def attribute_changed(self) -> None:
        settings = [
            (module, name)
            for module in self.model.base_model.modules()
            for name, value in vars(module).items()
            if type(value) is float and name in ("scaling", "eps", "variance_epsilon", "inv_norm_factor", "scale_attn")
        ]
        if settings:
            module, name = self.random.choice(settings)
            setattr(module, name, getattr(module, name) * 1.5)

    def cast(self) -> None:
        self.model.to(torch.float32 if self.model.dtype == torch.float64 else torch.float64)

    def resized(self) -> None:
        if self.model.config.model_type != "mixtral":
            self.model.resize_token_embeddings(tiny.VOCABULARY + self.random.randrange(9), mean_resizing=False)

    def mode_changed(self) -> None:
        self.model.train(self.random.random() < 0.5)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """The rows of an ablation by the word that is left out, which do not depend on the model."""
    checked = Checked(copy.deepcopy(tiny.model()))
    checked.run()
    texts = {str(tiny.tokenizer().decode(list(row.prompt))): row for row in checked.recorder.scores}
    return {"": texts[PROMPT]} | {
        word: next(row for text, row in texts.items() if word not in text) for word in PROMPT.split()
    }


def by_brute_force(model: PreTrainedModel, rows: dict[str, Row]) -> torch.Tensor:
    """Leave-one-out values from forwards of single rows."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    scores = [reference.log_probs(model, row.prompt, row.target).sum() for row in rows.values()]
    for module in training:
        module.training = True
    return torch.stack([scores[0] - score for score in scores[1:]])


def tolerance(model: PreTrainedModel, family: str) -> float:
    return 2e-4 if model.dtype == torch.float32 else 1e-6 if family == "bloom" else 1e-8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The evaluation cache is disabled:RuntimeWarning")
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_run_is_that_of_the_model_as_it_is(family: str, part: int, rows: dict[str, Row], tmp_path: Path) -> None:
    """The cache is one file for all sequences, so that values of every other state are there to be mistaken."""
    states = 0
    for seed in range(part, SEQUENCES, 2):
        model = copy.deepcopy(tiny.model(family))
        explainer = ap.Explainer((model, tiny.tokenizer()), cache=tmp_path / "scores.sqlite", progress=False)
        fuzzer = Fuzzer(model, seed)
        explainer.attribute(PROMPT, TARGET, method="ablation")
        for _ in range(CHANGES):
            fuzzer.change()
            modes = [module.training for module in model.modules()]
            found = explainer.attribute(PROMPT, TARGET, method="ablation")
            error = float((torch.as_tensor(found.values) - by_brute_force(model, rows)).abs().max())
            assert error < tolerance(model, family), (seed, fuzzer.done, error, found.provenance.notes)
            assert [module.training for module in model.modules()] == modes
            states += 1
        explainer.close()
    assert states == SEQUENCES // 2 * CHANGES
