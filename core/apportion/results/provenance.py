"""Where a result comes from."""

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
    """Everything needed to run it again, and to know what it cost.

    Attributes:
        method: the method that ran.
        method_reason: why ``method="auto"`` chose it; empty when the user did.
        options: the method's options, defaults included.
        generation: options of the generation when the model wrote the target; ``None`` when it was given.
        target_fn: the target function.
        target_options: its options, as given.
        contrast: what the target was compared with; ``None`` if it was not.
        unit: what one unit of the values is.
        budget: the most distinct evaluations allowed; ``None`` for no limit.
        until: the standard error below which sampling was to end; ``None`` if none was asked for.
        seed: of every random draw.
        evaluations: distinct model inputs that were scored in this run, and in those that it goes on from.
        cached: distinct model inputs whose scores a cache knew from an earlier run.
        forwarded_tokens: tokens the model read for them.
        seconds: wall-clock time of the run; runs of ``attribute_many`` overlap.
        model: what was loaded, as the user named it.
        fingerprint: a hash of the model's configuration and of a sample of its weights.
        backend: what scored.
        device: such as ``"cpu"``.
        dtype: of the weights.
        versions: of the packages that matter.
        notes: choices made on the way that a reader should know.
        created: ISO 8601, UTC.
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


def versions() -> dict[str, str]:
    """Versions of apportion, Python and the packages that decide the numbers."""
    found = {"apportion": __version__, "python": platform.python_version()}
    return found | {name: version for name in ("torch", "transformers", "tokenizers") if (version := _installed(name))}


@functools.cache
def _installed(package: str) -> str | None:
    """Looked up once: a lookup reads the package's whole description."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
