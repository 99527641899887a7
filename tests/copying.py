"""A model with weights set by hand that writes letters of its prompt, each read from a known place."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf

from apportion.testing import tiny

__all__ = ["copying_model"]

SHARP = 400.0
"""Scale of attention scores: all of the weight falls on one token."""


def copying_model(source: Callable[[int], int], length: int) -> tf.PreTrainedModel:
    """A GPT-2 of two layers whose first attends, from each position, to one earlier position alone, and copies it.

    Its states have three parts: the token, the position, and what was copied, which the head reads. The second layer
    attends everywhere alike and adds nothing.

    Args:
        source: maps a position to the one whose token the next token repeats.
        length: number of positions.
    """
    tokens = tiny.VOCABULARY
    size = tokens + length + tokens
    config = tf.GPT2Config(
        vocab_size=tokens, n_embd=size, n_layer=2, n_head=1, n_positions=length, n_inner=4,
        bos_token_id=256, eos_token_id=257, tie_word_embeddings=False,
    )  # fmt: skip
    model = tf.GPT2LMHeadModel(config).double().eval()
    token, place, copy = slice(0, tokens), slice(tokens, tokens + length), slice(tokens + length, size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" not in name:
                parameter.zero_()
        model.transformer.wte.weight[:, token] = torch.eye(tokens, dtype=torch.float64)
        model.transformer.wpe.weight[:, place] = torch.eye(length, dtype=torch.float64)
        attention = model.transformer.h[0].attn
        queries, keys, values = attention.c_attn.weight.split(size, dim=1)
        for position in range(length):
            queries[place.start + position, min(max(source(position), 0), position)] = SHARP
            keys[place.start + position, position] = 1.0
        values[token, token] = torch.eye(tokens, dtype=torch.float64)
        attention.c_proj.weight[token, copy] = torch.eye(tokens, dtype=torch.float64)
        model.lm_head.weight[:, copy] = torch.eye(tokens, dtype=torch.float64)
    return model
