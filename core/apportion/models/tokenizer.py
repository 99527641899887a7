"""Opens a tokenizer by name, for backends of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.errors import InputError, ModelError
from apportion.models.quiet import quiet_transformers
from apportion.models.spec import files_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apportion.protocols.model import ModelSpec

__all__ = ["open_tokenizer"]


def open_tokenizer(spec: ModelSpec, default: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that a spec names or holds.

    Args:
        spec: a spec that may hold a tokenizer object, or the hub id or folder of one.
        default: hub id or folder to load from if the spec names no tokenizer.

    Raises:
        ModelError: the tokenizer cannot be loaded, or none is named.
        InputError: ``spec.tokenizer`` is of another type.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    named = spec.tokenizer
    if isinstance(named, PreTrainedTokenizerBase):
        return named
    if named is None and default is None:
        raise ModelError(f"{spec.source} comes without a tokenizer; give one: tokenizer= a hub id, folder or object.")
    source = default if named is None else named
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        raise InputError(f"tokenizer={source!r:.60} must be a tokenizer of transformers, a hub id or a folder.")
    if not str(source):
        raise InputError("tokenizer='' is empty; give a hub id, a folder, or leave it out.")
    try:
        where, options = files_of(str(source))
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:  # damaged files fail in many ways
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"The tokenizer {str(source)!r} cannot be loaded: {lines[0]}") from error
