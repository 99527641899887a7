"""Greedy generation with any function from tokens to the logits of the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from apportion.errors import InputError, shown, suggestion
from apportion.options import whole_number
from apportion.rendering.token_texts import added_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["continued"]

NEW_TOKENS = 25
WITHOUT_EFFECT: Mapping[str, object] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
"""Options that a greedy generation may have, with the only value."""


def continued(
    logits: Callable[[tuple[int, ...]], np.ndarray],
    ids: tuple[int, ...],
    options: Mapping[str, object],
    end_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    room: int | None,
    stop: Sequence[str],
) -> tuple[int, ...]:
    """The most likely tokens, one after the other.

    Args:
        logits: logits ``[V]`` of the token after these.
        ids: the prompt.
        options: ``max_new_tokens``, and options of sampling with the values that turn it off.
        end_ids: tokens that end the text, and are its last.
        tokenizer: decodes tokens, to find stop texts.
        room: maximum number of tokens that fit into the context.
        stop: texts that end the generation.

    Raises:
        InputError: an option that this backend does not have.
    """
    most = _new_tokens(options)
    if room is not None:
        most = min(most, room)
    written = list(ids)
    while len(written) < len(ids) + most:
        written.append(int(logits(tuple(written)).argmax()))
        if written[-1] in end_ids:
            break
        if stop:
            text = added_text(tokenizer, written, len(ids), len(written))
            if any(one in text for one in stop):
                break
    return tuple(written[len(ids) :])


def _new_tokens(options: Mapping[str, object]) -> int:
    for name, value in options.items():
        if name == "max_new_tokens":
            continue
        if name not in WITHOUT_EFFECT:
            known = ["max_new_tokens", *WITHOUT_EFFECT]
            raise InputError(
                f"The backend 'onnxruntime' generates greedily, so generate= has no option {name!r}. "
                f"{suggestion(name, known)}It has max_new_tokens. Use backend='torch' for others."
            )
        if value != WITHOUT_EFFECT[name]:
            raise InputError(
                f"The backend 'onnxruntime' generates greedily; generate= cannot have {name}={shown(value)}. Leave it "
                "out, or use backend='torch'."
            )
    return whole_number("max_new_tokens", options.get("max_new_tokens", NEW_TOKENS), least=1)
