"""The most tokens that a model reads at once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

__all__ = ["context_length"]

DECLARED = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
"""Names by which configurations declare the limit."""
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding", "pos_emb", "wpe_embeddings")
"""Names of embeddings that are looked up by position."""


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model reads at once: what its configuration declares, and its position table has.

    ``None`` if it has no limit.
    """
    config = model.config.get_text_config()
    declared = [getattr(config, name, None) for name in DECLARED]
    limits = [limit for limit in declared if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    return min((*limits[:1], *_position_tables(model)), default=None)


def _position_tables(model: PreTrainedModel) -> Iterator[int]:
    """Tokens that the model's position embeddings have room for."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in POSITION_TABLES or not isinstance(module, nn.Embedding):
            continue
        # RoBERTa and its like count positions from the one after the padding's; OPT and BART from a fixed offset.
        skipped = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
        yield module.num_embeddings - int(skipped)
