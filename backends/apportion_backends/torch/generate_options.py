"""Checks of the options of a generation, which ``transformers`` would ignore, or refuse in words of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import GenerationConfig

from apportion.errors import InputError, suggestion

__all__ = ["check_generate_options", "unknown_options"]

_INPUTS = ("input_ids", "inputs", "inputs_embeds", "attention_mask", "past_key_values", "pixel_values")
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(_INPUTS, "The model reads the prompt, and nothing else."),
    "max_length": "Write max_new_tokens, the length without the prompt.",
    "generation_config": "Write its settings as options: {'do_sample': True, …}.",
    "stop_strings": "Write stop, a text or a list of texts.",
}
_DECODER: Mapping[str, str] = {
    **dict.fromkeys(
        ("forced_bos_token_id", "decoder_start_token_id"),
        "Targets are scored after it, too: set it in model.generation_config, or set tgt_lang= of the tokenizer.",
    ),
    **dict.fromkeys(
        ("decoder_input_ids", "decoder_inputs_embeds", "encoder_outputs"),
        "The model reads the prompt, and writes the target.",
    ),
}
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_BEAMS = ("length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty")


def check_generate_options(options: Mapping[str, object], *, decoder: bool = False) -> None:
    """Refuse options that would have no effect, or another than they seem to.

    Args:
        options: options of the generation.
        decoder: the model has a decoder that begins with tokens of its own.

    Raises:
        InputError: an option is set by apportion, or needs another one; the message says what to write.
    """
    instead = {**_INSTEAD, **_DECODER} if decoder else _INSTEAD
    for name in options:
        if name in instead:
            raise InputError(f"generate= has no option {name!r} here. {instead[name]}")
    for names, needed, there in (
        (_SAMPLING, "'do_sample': True", options.get("do_sample")),
        (_BEAMS, "'num_beams': 4 or another number above 1", options.get("num_beams", 1) != 1),
    ):
        for name in names:
            if options.get(name) is not None and not there:
                raise InputError(f"The option {name!r} of generate= has no effect without {needed}; add that.")


def unknown_options(options: Iterable[str], generate: Any) -> str:
    """A sentence about the first option that the model's ``generate`` does not know; empty if it knows all."""
    known = {*GenerationConfig().to_dict(), *inspect.signature(generate).parameters} - {*_INSTEAD, "kwargs", "self"}
    for name in options:
        if name not in known:
            return f"generate= has no option {name!r}. {suggestion(name, known)}".rstrip()
    return ""
