"""Cases to compare: a piece of work with apportion, and the same with peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benchmarks.speed.peer import Peer
from benchmarks.speed.peers import captum, context_cite, inseq, shap

import apportion as ap
from apportion.benchmarking import texts
from apportion.benchmarking.works import Work, work

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A line of the tables.

    Attributes:
        work: the work with apportion.
        peers: the same work with peers, by the names shown in tables.
        values: selects the values of our result that peers are compared with.
        aim: target ratio to a peer, by the peer's name.
        long: runs only with ``--long``, because it takes very long.
    """

    work: Work
    peers: Mapping[str, Peer]
    values: Callable[[ap.Attribution], np.ndarray] = lambda result: result.values
    aim: Mapping[str, float] = field(default_factory=dict)
    long: bool = False


CORRECT, DEFAULT = "Captum, correct path", "Captum, default path"
SEED = 0
SLOTS = (texts.SLOTS_5, texts.VALUES_5, texts.BASELINES_5, texts.TARGET)
THREE = ("name", "city", "job")
SLOTS_3 = (
    texts.SLOTS_5.replace("{state}", "FL").replace("{pronoun}", "His"),
    {name: texts.VALUES_5[name] for name in THREE},
    {name: texts.BASELINES_5[name] for name in THREE},
    texts.TARGET,
)
PATIENT = (texts.SLOTS_12, texts.VALUES_12, texts.BASELINES_12, texts.DIAGNOSIS)
NO_EXAMPLES = dict.fromkeys(texts.examples(), "")
FEW_SHOT = (texts.FEW_SHOT, texts.examples(), NO_EXAMPLES, texts.LABEL)
ANSWER = texts.ANSWER.strip()
SENTENCES = tuple(f"{sentence}." for sentence in texts.document().removesuffix(".").split(". "))


def _template(template: str, values: Mapping[str, str], baselines: Mapping[Any, object]) -> Callable[[], ap.Template]:
    return lambda: ap.Template(template, values, dict(baselines))


def _document() -> ap.Documents:
    return ap.Documents(texts.QUESTION, [texts.document()], by="sentences", as_chat=True)


def _captum_draws(name: str, summary: str, like: Work, samples: int) -> Work:
    arguments = {"method": "captum_kernel_shap", "n_samples": samples, "seed": SEED}
    return dataclasses.replace(like, name=name, summary=summary, arguments=arguments)


ablation, shapley, few_shot = work("ablation"), work("shapley"), work("few_shot")
_ALL = (
    Case(
        ablation,
        {
            CORRECT: captum.tokens("FeatureAblation", texts.SENTENCE, texts.TARGET),
            DEFAULT: captum.tokens("FeatureAblation", texts.SENTENCE, texts.TARGET, default_path=True),
        },
        aim={CORRECT: 6, DEFAULT: 50},
    ),
    Case(
        dataclasses.replace(
            ablation,
            name="occlusion",
            summary="ablation of the tokens of a sentence, in probabilities",
            arguments={"method": "ablation", "target_fn": "prob"},
        ),
        {"Inseq occlusion": inseq.occlusion(texts.SENTENCE, texts.TARGET)},
        values=lambda result: np.abs(result.token_values),
        aim={"Inseq occlusion": 30},
    ),
    Case(shapley, {CORRECT: captum.slots("ShapleyValues", *SLOTS)}, aim={CORRECT: 120}),
    Case(
        dataclasses.replace(
            shapley, name="shapley_3", summary="exact Shapley values of 3 slots", prompt=_template(*SLOTS_3[:3])
        ),
        {
            CORRECT: captum.slots("ShapleyValues", *SLOTS_3),
            DEFAULT: captum.slots("ShapleyValues", *SLOTS_3, default_path=True),
        },
    ),
    Case(
        _captum_draws("captum_draws", "Captum's 256 draws for 12 slots", work("kernel_shap"), 256),
        {CORRECT: captum.slots("KernelShap", *PATIENT, n_samples=256, seed=SEED)},
    ),
    Case(
        work("kernel_shap"),
        {"shap KernelExplainer": shap.kernel(*PATIENT, evaluations=256)},
    ),
    Case(
        dataclasses.replace(
            work("document"),
            prompt=_document,
            target=ANSWER,
            arguments={"method": "context_cite", "budget": 64, "sampler": context_cite.SameMasks()},
        ),
        {"context-cite": context_cite.citer(SENTENCES, texts.QUESTION, ANSWER, ablations=64)},
        aim={"context-cite": 2.5},
    ),
    Case(few_shot, {CORRECT: captum.slots("FeatureAblation", *FEW_SHOT)}),
    Case(
        _captum_draws("few_shot_draws", "Captum's 32 draws for 8 examples after long instructions", few_shot, 32),
        {CORRECT: captum.slots("KernelShap", *FEW_SHOT, n_samples=32, seed=SEED)},
    ),
    Case(
        dataclasses.replace(
            few_shot,
            name="few_shot_shapley",
            summary="exact Shapley values of 8 examples after long instructions",
            arguments={"method": "shapley"},
        ),
        {"shap ExactExplainer": shap.exact(*FEW_SHOT)},
        long=True,
    ),
)
CASES: Mapping[str, Case] = {case.work.name: case for case in _ALL}
