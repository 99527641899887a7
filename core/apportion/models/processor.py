"""Opening of processors, also where their half for videos cannot be opened."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from apportion.errors import InputError, ModelError
from apportion.models.quiet import quiet_transformers
from apportion.models.spec import files_of

__all__ = ["is_processor", "named_processor", "open_processor", "without_video"]

CONFIGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that may name the class of a processor."""
NO_VIDEO = SimpleNamespace(num_frames=1, fps=1, merge_size=2)
"""Numbers that processors ask the processor of videos for, even if there are none."""


def is_processor(value: object) -> bool:
    """True for a processor that reads pictures and text, such as those of transformers."""
    return callable(value) and hasattr(value, "image_processor") and hasattr(value, "tokenizer")


def named_processor(given: object) -> Any:
    """The processor that a user gave: an object, or the name or folder of one.

    Raises:
        ModelError: it cannot be opened.
        InputError: it is of another type.
    """
    if is_processor(given):
        return given
    if not isinstance(given, str) and not hasattr(given, "__fspath__"):
        raise InputError(
            f"processor={given!r:.60} must be a processor of transformers with an image processor and a tokenizer, a "
            "hub id or a folder."
        )
    source, options = files_of(str(given))
    return open_processor(source, options)


def open_processor(source: str, options: Mapping[str, Any]) -> Any:
    """Open the processor in a folder or of a hub id.

    Some processors need torchvision for videos. Without it, they are opened without that half.

    Raises:
        ModelError: it cannot be opened, or reads no pictures.
    """
    from transformers import AutoProcessor

    with quiet_transformers():
        try:
            try:
                opening: Any = AutoProcessor
                found = opening.from_pretrained(source, **options)
            except (ImportError, OSError, ValueError, TypeError, AttributeError) as error:
                kind = _processor_class(source, options)
                if kind is None or "video_processor" not in kind.get_attributes():
                    raise error
                found = without_video(kind).from_pretrained(source, **options)
        except ImportError as error:
            raise ModelError(f"The processor in {source!r} needs a package that is missing: {_line(error)}") from error
        except Exception as error:  # damaged files fail in many ways
            raise ModelError(f"The processor in {source!r} cannot be opened: {_line(error)}") from error
    if not is_processor(found):
        raise ModelError(
            f"{source!r} has no processor of pictures, but a {type(found).__name__}. Give one with processor=."
        )
    return found


def _processor_class(source: str, options: Mapping[str, Any]) -> Any:
    """The class that the files name; ``None`` if they name none."""
    import transformers
    from transformers.utils.hub import cached_file

    for name in CONFIGS:
        path = Path(source, name) if Path(source).is_dir() else None
        if path is None:
            found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **options)
            path = Path(found) if found else None
        if path is None or not path.is_file():
            continue
        named = json.loads(path.read_text()).get("processor_class")
        if named:
            return getattr(transformers, named, None)
    return None


@functools.cache
def without_video(kind: Any) -> Any:
    """The class of a processor without its half for videos, whose check needs torchvision.

    Args:
        kind: the class.
    """
    kept = [name for name in kind.get_attributes() if name != "video_processor"]
    place = list(inspect.signature(kind.__init__).parameters).index("video_processor") - 1

    def from_args_and_dict(cls: Any, /, args: Sequence[Any], values: dict[str, Any], **options: Any) -> Any:
        # Some constructors have no default for it.
        return super(made, cls).from_args_and_dict([*args[:place], None, *args[place:]], values, **options)

    members = {
        "get_attributes": classmethod(lambda cls: list(kept)),
        "from_args_and_dict": classmethod(from_args_and_dict),
        "video_processor": NO_VIDEO,
    }
    made: Any = type(kind.__name__, (kind,), members)
    return made


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
