"""The provenance of a result."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from apportion._version import __version__

__all__ = ["Provenance", "versions"]


@dataclass(frozen=True)
class Provenance:
    """Everything needed to repeat a run, and its cost.

    Attributes:
        method: name of the method that ran.
        method_reason: the reason why ``method="auto"`` chose it; empty if the user did.
        options: the method's options, defaults included.
        generation: options of the generation if the model wrote the target, or texts to compare with it; else ``None``.
        target_end: why a target that the model wrote ends where it does: ``"model"`` (the model ended it), ``"stop"``
            (a stop text followed) or ``"limit"`` (it was cut off); ``None`` if the target was given.
        target_fn: name of the target function.
        target_label: what the target function measures; empty if it does not say.
        target_rise: what a higher value of it means, such as ``"makes the target less likely"``; empty if the label
            says it.
        target_options: options of the target function, as given.
        contrast: the text that the target was compared with; ``None`` if there was none.
        unit: unit of the values.
        score_unit: unit of the target function's values, if that is another one, as for attention weights; else empty.
        budget: maximum number of distinct evaluations allowed; ``None`` for no limit.
        until: the largest standard error allowed; ``None`` if no limit was given.
        seed: seed of every random draw.
        evaluations: distinct model inputs that were scored in this run, and in the runs that it continues.
        cached: distinct model inputs whose scores were cached by an earlier run.
        forwarded_tokens: number of tokens that the model read to score them. What it read to write the target is not
            counted, nor is the one row that may be scored to compare two spellings of the target.
        encoded_media: number of media, such as pictures, that the model encoded to score them.
        seconds: wall-clock time of the run in seconds; runs of ``attribute_many`` overlap.
        model: the model, as the user named it.
        fingerprint: hash of the model's configuration and of a sample of its weights.
        backend: name of the backend.
        device: device, such as ``"cpu"``.
        dtype: dtype of the weights.
        versions: versions of the packages that affect the values.
        notes: choices made during the run that a reader should know.
        created: date and time, in ISO 8601 and UTC.
        step_scores: for each step score, a dict of its ``target_fn``, ``options``, ``contrast``, ``unit`` and
            ``label``.
        step_evaluations: evaluations, cached ones included, that were made for step scores alone; the budget does not
            limit them.
        likeness: scores of a fixed row (``log_probs``), by which a model is known again that nobody can hash, such as
            one behind a server, and the largest difference that it may show (``tolerance``); empty for others.
        samples: number of texts that the model wrote after each prompt, for target functions that read texts; else 0.
    """

    method: str
    method_reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] | None = None
    target_fn: str = "log_prob"
    target_options: Mapping[str, Any] = field(default_factory=dict)
    contrast: str | None = None
    unit: str = "nats"
    budget: int | None = None
    until: float | None = None
    seed: int = 0
    evaluations: int = 0
    cached: int = 0
    forwarded_tokens: int = 0
    seconds: float = 0.0
    model: str = ""
    fingerprint: str = ""
    backend: str = ""
    device: str = ""
    dtype: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    created: str = ""
    target_end: str | None = None
    target_label: str = ""
    target_rise: str = ""
    score_unit: str = ""
    step_scores: Mapping[str, Any] = field(default_factory=dict)
    step_evaluations: int = 0
    encoded_media: int = 0
    samples: int = 0
    likeness: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method_evaluations(self) -> int:
        """Evaluations of the method, cached ones included: those that the budget limits."""
        return self.evaluations + self.cached - self.step_evaluations


def versions() -> dict[str, str]:
    """Versions of apportion, Python and the packages that affect the values."""
    found = {"apportion": __version__, "python": platform.python_version()}
    return found | {name: version for name in ("torch", "transformers", "tokenizers") if (version := _installed(name))}


@functools.cache
def _installed(package: str) -> str | None:
    """Version of a package, cached because a lookup reads the package's whole description."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
