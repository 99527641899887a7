"""Memory: estimates for rows, and detection of out-of-memory errors."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from apportion.errors import BatchTooLargeError
from apportion_backends.torch.encoder_decoder import half_config

__all__ = ["ActivationSize", "HalvesActivationSize", "RowBytes", "ran_out_of_memory", "translate_out_of_memory"]

RowBytes = Callable[[int, int, int], int]
"""Upper estimate of a row's memory in bytes, from the lengths ``(prefix, suffix, target)``."""


class ActivationSize:
    """An upper estimate of the activations of one row, from the sizes in the model's configuration."""

    def __init__(self, model: PreTrainedModel, *, linear_head: bool, supports_logits_to_keep: bool) -> None:
        config = model.config.get_text_config()
        self.element = model.dtype.itemsize
        self.hidden = int(config.hidden_size)
        inner = getattr(config, "intermediate_size", None) or 4 * self.hidden
        self.inner = int(max(inner) if isinstance(inner, list | tuple) else inner)
        # Mixtures of experts keep one copy of a token for each expert it is sent to.
        self.inner *= int(getattr(config, "num_experts_per_tok", None) or 1)
        # State-space models without fused kernels hold one state for each token.
        self.inner *= int(getattr(config, "state_size", None) or 1)
        self.heads = int(getattr(config, "num_attention_heads", None) or 0)
        self.eager = getattr(model.config, "_attn_implementation", "") == "eager"
        self.vocabulary = int(config.vocab_size)
        self.linear_head = linear_head
        self.supports_logits_to_keep = supports_logits_to_keep

    def __call__(self, prefix: int, suffix: int, targets: int) -> int:
        """Bytes for a row of ``prefix + suffix`` prompt tokens and ``targets`` target tokens."""
        read = suffix + targets
        layer = read * (8 * self.hidden + 4 * self.inner)
        keys_and_values = 4 * (prefix + read) * self.hidden if prefix else 0
        scores = 3 * self.heads * read * (prefix + read) if self.eager else 0
        # An attention mask appears when the queries are fewer than the keys.
        mask = read * (prefix + read) if prefix else 0
        # Without a plain head the model makes logits itself, for all positions if it cannot choose.
        rows = targets if self.linear_head or self.supports_logits_to_keep else read
        held = self.hidden + (0 if self.linear_head else 3 * self.vocabulary)
        return self.element * (layer + keys_and_values + scores + mask) + max(4, self.element) * rows * held


class HalvesActivationSize:
    """An upper estimate of the activations of one row in an encoder and a decoder, from their configurations."""

    def __init__(self, model: PreTrainedModel, *, linear_head: bool) -> None:
        self._encoder, self._decoder = (_Half(half_config(model.config, half), half) for half in ("encoder", "decoder"))
        self._element = model.dtype.itemsize
        written = getattr(model.config, "decoder_vocab_size", None) or model.config.get_text_config().vocab_size
        self._vocabulary = 0 if linear_head else 3 * int(written)

    def __call__(self, prefix: int, suffix: int, targets: int) -> int:
        """Bytes for a row of ``prefix + suffix`` prompt tokens and ``targets`` target tokens."""
        source = prefix + suffix
        encoded = self._encoder.layer(source, source)
        decoded = self._decoder.layer(targets, targets) + self._decoder.cross(targets, source)
        held = targets * (self._decoder.hidden + self._vocabulary)
        return (
            self._element * (max(encoded, decoded) + 2 * source * self._encoder.hidden) + max(4, self._element) * held
        )


class _Half:
    """Sizes of an encoder or decoder."""

    def __init__(self, config: PreTrainedConfig, half: str) -> None:
        self.hidden = int(config.hidden_size)
        self.heads = int(getattr(config, f"{half}_attention_heads", None) or config.num_attention_heads)
        # T5 has keys of any width.
        self._inner = self.heads * int(getattr(config, "d_kv", None) or -(-self.hidden // self.heads))
        sizes = (getattr(config, name, None) for name in (f"{half}_ffn_dim", "d_ff", "intermediate_size"))
        self._forward = next((int(size) for size in sizes if size), 4 * self.hidden)

    def layer(self, queries: int, keys: int) -> int:
        """Numbers in a layer; masks and position biases are matrices for each head."""
        tokens = queries * (4 * self.hidden + 4 * self._inner + 3 * self._forward)
        return tokens + 3 * self.heads * queries * keys

    def cross(self, queries: int, keys: int) -> int:
        """Numbers in the attention to a prompt."""
        return 2 * keys * self._inner + 3 * self.heads * queries * keys


def ran_out_of_memory(error: BaseException) -> bool:
    """True for PyTorch's out-of-memory errors, of GPU and CPU."""
    if isinstance(error, BatchTooLargeError | torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


@contextmanager
def translate_out_of_memory() -> Iterator[None]:
    """Turn PyTorch's out-of-memory errors, of GPU and CPU, into ``BatchTooLargeError``."""
    try:
        yield
        return
    except Exception as error:
        if isinstance(error, BatchTooLargeError) or not ran_out_of_memory(error):
            raise
        message = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
    # Outside the except block: the traceback no longer holds the failed batch's tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise BatchTooLargeError(message)
