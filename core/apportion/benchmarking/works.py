"""Benchmark cases: prompts, targets and methods that need only a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.benchmarking import texts
from apportion.errors import unknown_name
from apportion.prompts.documents import Documents
from apportion.prompts.template import Template
from apportion.prompts.text import Text

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.results.attribution import Attribution

__all__ = ["WORKS", "Work", "work"]


@dataclass(frozen=True)
class Work:
    """One call of ``Explainer.attribute``.

    Attributes:
        name: name of the case in tables and flags.
        summary: short description.
        prompt: makes the prompt; called once per run.
        target: the output to explain.
        arguments: all other arguments of the call.
    """

    name: str
    summary: str
    prompt: Callable[[], object]
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def run(self, explainer: Explainer) -> Attribution:
        """Run the case."""
        return explainer.attribute(self.prompt(), self.target, **self.arguments)


def work(name: str) -> Work:
    """Look up a case by name.

    Raises:
        UnknownNameError: the name is unknown.
    """
    if name not in WORKS:
        raise unknown_name("case", name, WORKS)
    return WORKS[name]


_ALL = (
    Work(
        "ablation",
        "ablation of the tokens of a sentence",
        lambda: Text(texts.SENTENCE, by="tokens", baseline=0),
        texts.TARGET,
        {"method": "ablation"},
    ),
    Work(
        "shapley",
        "exact Shapley values of 5 slots",
        lambda: Template(texts.SLOTS_5, texts.VALUES_5, texts.BASELINES_5),
        texts.TARGET,
        {"method": "shapley"},
    ),
    Work(
        "kernel_shap",
        "kernel SHAP, 12 slots, 256 evaluations",
        lambda: Template(texts.SLOTS_12, texts.VALUES_12, texts.BASELINES_12),
        texts.DIAGNOSIS,
        {"method": "kernel_shap", "budget": 256},
    ),
    Work(
        "document",
        "ContextCite, 60 sentences, 64 evaluations",
        lambda: Documents(texts.QUESTION, [texts.document()], by="sentences"),
        texts.ANSWER,
        {"method": "context_cite", "budget": 64},
    ),
    Work(
        "few_shot",
        "ablation of 8 examples after long instructions",
        lambda: Template(texts.FEW_SHOT, texts.examples(), dict.fromkeys(texts.examples(), "")),
        texts.LABEL,
        {"method": "ablation"},
    ),
)
WORKS: Mapping[str, Work] = {each.name: each for each in _ALL}
