"""Models of the Hugging Face Hub where it cannot be reached: found in its cache on this machine, or refused at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion.errors import ModelError, suggestion

__all__ = ["hub_options"]

PATIENCE = 5.0
"""Seconds to wait for an answer of the hub."""
FILES = ("config.json", "adapter_config.json", "tokenizer_config.json")
"""One of these is in the cache, if the model is."""


def hub_options(source: str, names: Sequence[str] = ()) -> Mapping[str, Any]:
    """The options with which ``from_pretrained`` does not ask a hub that does not answer.

    Args:
        source: hub id, or a path, for which there are none.
        names: other names that may have been meant.

    Raises:
        ModelError: the hub does not answer, and the model is not in its cache.
    """
    if Path(source).exists():
        return {}
    why = _silence()
    if not why:
        return {}
    if not _is_cached(source):
        raise ModelError(
            f"{source!r} is not a file or folder, nor a model that was downloaded before. It cannot be downloaded "
            f"now, because {why}. {suggestion(source, names)}Connect, or give a folder or a .gguf file."
        )
    return {"local_files_only": True}


def _silence() -> str:
    """The reason why the hub cannot be asked; empty if it answers."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        # One request without repetitions: from_pretrained repeats each of its own five times, for most of a minute.
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # whatever the HTTP client raises
        return f"{constants.ENDPOINT} does not answer ({' '.join(str(error).split()) or type(error).__name__})"
    return ""


def _is_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(source, name), str) for name in FILES)
    except HFValidationError:  # from_pretrained says what is wrong with the id
        return True
