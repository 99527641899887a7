"""Tiny random models and a byte-level tokenizer, built in memory in a fraction of a second."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from apportion.models.quiet import quiet_transformers
from apportion.protocols.model import ModelSpec

__all__ = ["FAMILIES", "SEQ2SEQ_FAMILIES", "VOCABULARY", "config", "model", "spec", "tokenizer"]

VOCABULARY = 260
COMMON: Mapping[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
SIZES: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}

_CONFIGS: Mapping[str, Callable[[], tf.PretrainedConfig]] = {
    "llama": lambda: tf.LlamaConfig(**COMMON, **SIZES),
    "gpt2": lambda: tf.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=512),
    "qwen3": lambda: tf.Qwen3Config(**COMMON, **SIZES, head_dim=8),
    "opt": lambda: tf.OPTConfig(
        **COMMON,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        word_embed_proj_dim=16,
    ),
    "bloom": lambda: tf.BloomConfig(**COMMON, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: tf.MambaConfig(**COMMON, hidden_size=32, state_size=4, num_hidden_layers=2),
    "mixtral": lambda: tf.MixtralConfig(**COMMON, **SIZES, num_local_experts=4, num_experts_per_tok=2),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **COMMON, **SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma2": lambda: tf.Gemma2Config(
        **COMMON,
        **SIZES,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "phi3": lambda: tf.Phi3Config(**COMMON, **SIZES, sliding_window=None),
    "gpt_neox": lambda: tf.GPTNeoXConfig(
        **COMMON,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    ),
    "falcon": lambda: tf.FalconConfig(
        **COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=512
    ),
}

PAD = 258
DECODER: Mapping[str, Any] = {**COMMON, "pad_token_id": PAD, "decoder_start_token_id": 257}
BEGINS_WITH_PAD: Mapping[str, Any] = {**DECODER, "decoder_start_token_id": PAD}
HALVES: Mapping[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 512,
    "init_std": 0.2,
}

_SEQ2SEQ_CONFIGS: Mapping[str, Callable[[], tf.PretrainedConfig]] = {
    "t5": lambda: tf.T5Config(
        **BEGINS_WITH_PAD,
        d_model=32,
        d_kv=12,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    ),
    "bart": lambda: tf.BartConfig(**DECODER, **HALVES),
    "marian": lambda: tf.MarianConfig(
        **BEGINS_WITH_PAD, **HALVES, decoder_vocab_size=VOCABULARY + 1, share_encoder_decoder_embeddings=False
    ),
    "m2m_100": lambda: tf.M2M100Config(**DECODER, **HALVES, scale_embedding=True),
}

FAMILIES = tuple(_CONFIGS)
"""Causal architectures that ``model`` builds: plain, learned positions, tied weights, ALiBi, state space, experts,
sliding window, soft capping, fused projections, parallel blocks, multi-query attention."""
SEQ2SEQ_FAMILIES = tuple(_SEQ2SEQ_CONFIGS)
"""Encoder–decoder architectures that ``model`` builds: relative positions with scaled outputs, a forced first token and
a bias of the output layer, two vocabularies, scaled embeddings."""


@functools.cache
def tokenizer(*, adds_start: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte.

    Args:
        adds_start: add ``<s>`` before every prompt, as the tokenizers of most models do.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    if adds_start:
        start = (made.bos_token, made.bos_token_id)
        core = made.backend_tokenizer
        core.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start]),
            ]
        )
        made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    return made


def config(family: str) -> tf.PretrainedConfig:
    """A tiny configuration of one of ``FAMILIES`` or ``SEQ2SEQ_FAMILIES``."""
    return {**_CONFIGS, **_SEQ2SEQ_CONFIGS}[family]()


def model(family: str = "llama", dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A random model of this family, the same in every run, with weights large enough that context matters.

    It is cached and shared; copy it before you modify it.
    """
    return _built(family, dtype)


@functools.cache
def _built(family: str, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        if family in SEQ2SEQ_FAMILIES:
            built = tf.AutoModelForSeq2SeqLM.from_config(config(family)).to(dtype)
            if family == "bart":
                built.generation_config.forced_bos_token_id = 256
        else:
            # The grouped matrix products of experts have no float64 kernel.
            built = tf.AutoModelForCausalLM.from_config(config(family), experts_implementation="eager").to(dtype)
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.ndim > 1 and parameter.requires_grad:
                    parameter.mul_(1.5)
    made: PreTrainedModel = built.eval()
    return made


def spec(family: str = "llama", dtype: torch.dtype = torch.float64) -> ModelSpec:
    """Model and tokenizer, in the form that a backend takes."""
    return ModelSpec(f"tiny-{family}", tokenizer(), objects=model(family, dtype))
