"""The minimum number of arithmetic operations that scoring requires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from apportion.benchmarking.tree import PrefixTree
from apportion.errors import ModelError

__all__ = ["ModelShape", "optimal_flops"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a model that determine how much it computes.

    Attributes:
        body: number of weights in the matrices that every token passes through, without embeddings and output layer.
        head: number of weights in the output layer, H · V.
        attention: for each attention layer, the total width of its heads, and the length of its window (``None`` for no
            window).
    """

    body: int
    head: int
    attention: tuple[tuple[int, int | None], ...]

    @classmethod
    def of(cls, model: object) -> ModelShape:
        """Determine the shape of a causal language model of ``transformers``.

        In a mixture of experts, only the weights that one token passes through count.

        Raises:
            ModelError: the model has no output layer, or reads prompt and target in an encoder and a decoder.
        """
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} is an encoder–decoder model, whose prompts share no beginnings, so the least "
                "arithmetic is another. Benchmark a causal language model of transformers."
            )
        head = getattr(model, "get_output_embeddings", lambda: None)()
        if not isinstance(model, nn.Module) or head is None or getattr(head, "weight", None) is None:
            raise ModelError(
                f"A {type(model).__name__} has no output layer (`get_output_embeddings`), so its operations "
                "cannot be counted. Benchmark a causal language model of transformers."
            )
        # Tied weights are a single parameter that is both.
        aside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(head.weight)}
        matrices = [(n, p) for n, p in model.named_parameters() if p.ndim >= 2 and id(p) not in aside]
        config = getattr(model, "config", None)
        share = _active_experts(config)
        body = sum(round(p.numel() * (share if ".experts." in name else 1)) for name, p in matrices)
        return cls(body, head.weight.numel(), _attention(config))


def optimal_flops(shape: ModelShape, tree: PrefixTree, target_tokens: int) -> int:
    """Floating-point operations to score a tree of prompts, each with a target, if nothing is computed twice.

    Counts two operations per weight and token; two per weight of the output layer, row and target token; and in each
    layer four per channel and pair of a token and one it attends to (two for the attention scores, two for the weighted
    sum). Norms, activations, rotary embeddings and softmax are not counted: they are not matrix products, and small.

    Args:
        shape: shape of the model.
        tree: tree of the sequences prompt + target, without the last target token, which is not read.
        target_tokens: T.
    """
    windows: dict[int | None, int] = {}
    for width, window in shape.attention:
        windows[window] = windows.get(window, 0) + width
    attention = sum(4 * width * tree.attended(window) for window, width in windows.items())
    return 2 * shape.body * tree.nodes + 2 * shape.head * tree.rows * target_tokens + attention


def _active_experts(config: Any) -> float:
    """Fraction of the experts that a token passes through."""
    used = getattr(config, "num_experts_per_tok", None)
    there = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return used / there if used and there else 1.0


def _attention(config: Any) -> tuple[tuple[int, int | None], ...]:
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return ()
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    windows = {"full_attention": None, "sliding_attention": getattr(config, "sliding_window", None)}
    return tuple((width, windows[kind]) for kind in kinds if kind in windows)
