"""The most tokens that a model reads at once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from apportion_backends.torch.encoder_decoder import half_config

__all__ = ["context_length", "decoder_length", "encoder_length"]

DECLARED = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
"""Names by which configurations declare the limit."""
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding", "pos_emb", "wpe_embeddings")
"""Names of embeddings that are looked up by position."""


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens that a causal model reads at once: what its configuration declares, and its position table has.

    ``None`` if it has no limit.
    """
    text = model.config.get_text_config()
    # The tables of an encoder of pictures count patches.
    return _least(text, model if text is model.config else model.get_decoder(), DECLARED)


def encoder_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the encoder of an encoder–decoder model reads at once; ``None`` if it has no limit."""
    return _half_length(model, "encoder", model.get_encoder())


def decoder_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the decoder of an encoder–decoder model reads at once; ``None`` if it has no limit."""
    return _half_length(model, "decoder", model.get_decoder())


def _half_length(model: PreTrainedModel, half: str, module: nn.Module) -> int | None:
    config = half_config(model.config, half)
    # T5 and its like see distances between tokens; their configurations declare the length that they were trained on.
    names = () if hasattr(config, "relative_attention_num_buckets") else DECLARED
    return _least(config, module, (f"max_{half}_position_embeddings", *names))


def _least(config: PreTrainedConfig, module: nn.Module, names: tuple[str, ...]) -> int | None:
    declared = [getattr(config, name, None) for name in names]
    limits = [limit for limit in declared if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    return min((*limits[:1], *_position_tables(module)), default=None)


def _position_tables(model: nn.Module) -> Iterator[int]:
    """Tokens that the model's position embeddings have room for."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in POSITION_TABLES or not isinstance(module, nn.Embedding):
            continue
        # RoBERTa and its like count positions from the one after the padding's; OPT and BART from a fixed offset.
        skipped = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
        yield module.num_embeddings - int(skipped)
