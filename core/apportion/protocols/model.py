"""The user's specification of a model, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ModelSpec"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Specification of a model for a backend to open.

    Nothing is loaded until a backend has been chosen: ``Backend.claims`` inspects the spec, ``Backend.load`` opens it.

    Attributes:
        source: a name, hub id, folder, ``.gguf`` file or URL; for an object, the name that results show.
        tokenizer: a tokenizer object, or the name or folder of one; ``None`` for the model's own tokenizer.
        processor: the same, for models that read more than text.
        config: settings for opening the model, such as the revision of a hub id.
        objects: the model itself, if the user passed an object; the backend knows its type.
        allow_missing: open the model even if its files lack some of its weights. Otherwise, a backend refuses such
            files; if it fills gaps, its session's notes name them.
    """

    source: str
    tokenizer: object = None
    processor: object = None
    config: Mapping[str, object] = field(default_factory=dict)
    objects: object = None
    allow_missing: bool = False
