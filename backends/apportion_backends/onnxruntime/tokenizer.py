"""The tokenizer of a folder, opened without the classes of models, and the hash of its vocabulary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import ModelError
from apportion.models.tokenizer import open_tokenizer
from apportion.protocols.model import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["tokenizer_of", "vocabulary_hash"]


def tokenizer_of(spec: ModelSpec, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that a spec names or holds, or else that of the folder.

    Raises:
        ModelError: it cannot be loaded.
    """
    if spec.tokenizer is None and (folder / "tokenizer.json").is_file() and _is_plain(folder):
        # AutoTokenizer imports what models need, which takes longer than all of the rest.
        from transformers import PreTrainedTokenizerFast

        try:
            return PreTrainedTokenizerFast.from_pretrained(folder)  # type: ignore[no-any-return]
        except Exception as error:  # damaged files fail in many ways
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"The tokenizer in {str(folder)!r} cannot be loaded: {lines[0]}") from error
    return open_tokenizer(spec, str(folder))


def _is_plain(folder: Path) -> bool:
    """True if tokenizer.json is all that there is to a tokenizer."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        return settings.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    except (OSError, ValueError, AttributeError):
        return False


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the texts of all tokens and their ids."""
    tokens = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(repr(tokens).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
