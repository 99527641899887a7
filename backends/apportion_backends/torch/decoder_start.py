"""The tokens that a decoder reads before the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.errors import ModelError
from apportion.rendering.encoder import added_around

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DecoderStart", "decoder_start"]


@dataclass(frozen=True, slots=True)
class DecoderStart:
    """Tokens that a decoder reads before the target.

    Attributes:
        ids: token ids, at least one.
        notes: sentences for results, if there is more than the start token, or a token seems to be missing.
    """

    ids: tuple[int, ...]
    notes: tuple[str, ...] = ()


def decoder_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> DecoderStart:
    """The start token, and what follows it in every text that the model writes, such as the token of a language.

    What follows is ``forced_bos_token_id`` of the generation configuration, or else what the tokenizer puts before a
    target.

    Args:
        model: an encoder–decoder model.
        tokenizer: encodes targets as ``text_target``.

    Raises:
        ModelError: no start token is configured.
    """
    first = _configured(model, "decoder_start_token_id")
    first = _configured(model, "bos_token_id") if first is None else first
    if first is None:
        raise ModelError(
            f"The configuration of this {type(model).__name__} has no decoder_start_token_id, so the token that its "
            "decoder begins with is unknown. Set decoder_start_token_id in its generation_config.json, or in "
            "model.generation_config of a model that is loaded."
        )
    forced = _configured(model, "forced_bos_token_id")
    if forced is not None:
        return _with_note(tokenizer, (first, forced), "the generation config forces the latter (forced_bos_token_id)")
    if _lacks_language(tokenizer, first):
        name = tokenizer.convert_ids_to_tokens(first)
        return DecoderStart(
            (first,),
            (
                f"the tokenizer names no target language, so targets are scored right after {name}; if the model "
                "expects the token of a language there, set tgt_lang= of the tokenizer, or forced_bos_token_id of "
                "model.generation_config",
            ),
        )
    before = added_around(tokenizer, as_target=True)[0]
    if before in ((), (first,)):
        return DecoderStart((first,))
    return _with_note(tokenizer, (first, *before), "the tokenizer begins every target like this")


def _with_note(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], why: str) -> DecoderStart:
    names = " ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))
    return DecoderStart(ids, (f"targets are scored, and written by the model, after {names}, because {why}",))


def _configured(model: Any, name: str) -> int | None:
    """A token of the generation configuration, or else of the model's."""
    for config in (getattr(model, "generation_config", None), model.config):
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _lacks_language(tokenizer: PreTrainedTokenizerBase, first: int) -> bool:
    """True if the tokenizer can name a target language and does not, and the decoder does not begin with one."""
    named = getattr(tokenizer, "tgt_lang", "")
    ordinary = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return named is None and first in ordinary
