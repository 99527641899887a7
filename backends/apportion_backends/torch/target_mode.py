"""Tokenizers of two languages: one for prompts, one for targets."""

from __future__ import annotations

import copy
from typing import Any

from transformers import PreTrainedTokenizerBase

__all__ = ["languages", "source_tokenizer", "target_tokenizer"]


def languages(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    """The languages that a tokenizer is set to; ``None`` for those that it does not name."""
    return tuple(getattr(tokenizer, name, None) for name in ("src_lang", "tgt_lang", "source_lang", "target_lang"))


def target_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that encodes targets as ``text_target``.

    A tokenizer of several languages or vocabularies switches to those of the target for a moment. It is copied, so
    that no other thread encodes a prompt at that moment.
    """
    if not hasattr(tokenizer, "_switch_to_target_mode"):
        return tokenizer
    made: Any = copy.deepcopy(tokenizer)
    if getattr(made, "tgt_lang", "") is None:
        made.tgt_lang = made.src_lang  # only the special tokens depend on it, and targets get none
    found: PreTrainedTokenizerBase = made
    return found


def source_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that decodes prompts.

    A Marian tokenizer with two vocabularies decodes everything with that of the target; a copy decodes with that of
    the prompt.
    """
    if not getattr(tokenizer, "separate_vocabs", False):
        return tokenizer
    made: Any = copy.deepcopy(tokenizer)
    made.decoder = {number: token for token, number in made.encoder.items()}
    made.separate_vocabs = False  # or pieces would be joined by the target's model
    found: PreTrainedTokenizerBase = made
    return found
