"""What the user named as the model, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ModelSpec"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that a backend is asked to open.

    Nothing is loaded before a backend was chosen: ``Backend.claims`` looks at the spec, ``Backend.load`` opens it.

    Attributes:
        source: a name, hub id, folder, ``.gguf`` file or URL; for objects the name that results show.
        tokenizer: a tokenizer object, or the name or folder of one; ``None`` for the model's own.
        processor: the same for models that read more than text.
        config: settings for whoever opens the model, such as the revision of a hub id.
        objects: the model itself where the user passed an object; whose kind it is, a backend knows.
    """

    source: str
    tokenizer: object = None
    processor: object = None
    config: Mapping[str, object] = field(default_factory=dict)
    objects: object = None
