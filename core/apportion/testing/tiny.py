"""Tiny random models and a byte-level tokenizer, built in memory in a fraction of a second."""

from __future__ import annotations

import functools

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 260
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
LLAMA_LIKE = COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte; no special tokens are added to a prompt."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def config(family: str) -> tf.PretrainedConfig:
    """A tiny configuration of one of the families below."""
    return {
        "llama": lambda: tf.LlamaConfig(**LLAMA_LIKE),
        "gpt2": lambda: tf.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=512),
        "qwen3": lambda: tf.Qwen3Config(**LLAMA_LIKE, head_dim=8),
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
        "mixtral": lambda: tf.MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2),
        "gemma3": lambda: tf.Gemma3TextConfig(
            **LLAMA_LIKE, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
        ),
    }[family]()


FAMILIES = ("llama", "gpt2", "qwen3", "opt", "bloom", "mamba", "mixtral", "gemma3")


@functools.cache
def model(family: str = "llama", dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A random model of this family, the same in every run; weights large enough that context matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Grouped matrix products of experts have no float64 kernel.
        built = tf.AutoModelForCausalLM.from_config(config(family), experts_implementation="eager").to(dtype)
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    return built.eval()
