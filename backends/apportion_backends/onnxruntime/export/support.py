"""Checks that a model can be exported, and its sizes, before PyTorch's exporter spends a minute on it."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel

from apportion.errors import ModelError
from apportion.protocols.row import Row
from apportion_backends.onnxruntime.export.packed_module import PackedDecoder, packed_attention_of
from apportion_backends.onnxruntime.feeds import feeds_of
from apportion_backends.onnxruntime.manifest import Sizes
from apportion_backends.packing import lay_out
from apportion_backends.torch.comparing import REFUSALS, random_tokens
from apportion_backends.torch.critical_sizes import critical_sizes
from apportion_backends.torch.inputs import cache_argument
from apportion_backends.torch.memory import ActivationSize

__all__ = ["check_support", "longest_certain"]

INSTEAD = "Score it with backend='torch'."
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Names by which configurations declare mixtures of experts."""
TOLERANCE = 1e-3
"""Largest difference of hidden states, in units of their standard deviation."""


def check_support(model: PreTrainedModel) -> Sizes:
    """Try a packed batch in PyTorch, with the attention that is exported.

    Args:
        model: causal model in fp32, in ``scoring_mode``.

    Returns:
        The sizes of the model.

    Raises:
        ModelError: the model does not attend by the functions of ``transformers``, keeps a state other than keys and
            values, or gives other numbers in a packed batch.
    """
    name = type(model).__name__
    config = model.config.get_text_config()
    if any((getattr(config, one, None) or 0) > 1 for one in EXPERTS):
        raise ModelError(
            f"{name} cannot be exported: it is a mixture of experts, and which of them compute depends on the tokens, "
            f"which PyTorch's exporter cannot follow. {INSTEAD}"
        )
    can_set = getattr(model, "_can_set_attn_implementation", None)
    if can_set is None or not can_set():
        raise ModelError(
            f"{name} cannot be exported: its attention is code of its own, and not one that transformers lets others "
            f"exchange (AttentionInterface). {INSTEAD}"
        )
    sizes = _sizes(model, name)
    vocabulary = config.vocab_size
    a, b = (tuple(ids.tolist()) for ids in random_tokens(vocabulary, 2, 21))
    rows = sorted([Row(a[:18], a[18:]), Row(a[:9] + b[9:18], b[18:]), Row(b[:7], b[7:9])])
    try:
        found = _packed_states(model, sizes, rows)
        alone = [model.base_model(torch.tensor([row.read]), use_cache=False, return_dict=True)[0][0] for row in rows]
    except REFUSALS as error:
        raise ModelError(
            f"{name} cannot be exported: it fails on a packed batch ({type(error).__name__}: "
            f"{' '.join(str(error).split()):.150}). {INSTEAD}"
        ) from error
    for row, ours, states in zip(rows, found, alone, strict=True):
        states = states[len(row.prompt) - 1 :]
        if not bool(((ours[: len(states)] - states).abs() <= TOLERANCE * alone[0].std()).all()):
            raise ModelError(
                f"{name} cannot be exported: with the attention of the exported graph it gives other numbers than with "
                f"its own. It attends in a way that the graph does not have. {INSTEAD}"
            )
    return sizes


def longest_certain(model: PreTrainedModel) -> int | None:
    """The longest row for which the trial is certain; ``None`` for any length.

    Beyond the size of a chunk or a sparse attention, a model attends in another way, which the graph has not. A sliding
    window is a part of it.
    """
    config = model.config.get_text_config()
    windows = {getattr(config, "sliding_window", None)}
    return min((size for size in critical_sizes(config) if size not in windows), default=None)


def _sizes(model: PreTrainedModel, name: str) -> Sizes:
    """Sizes of a model; those of keys and values from what it keeps of two tokens."""
    cache = DynamicCache(config=model.config)
    try:
        model.base_model(torch.tensor([[1, 2]]), use_cache=True, **{cache_argument(model.base_model): cache})
        shapes = {(tuple(layer.keys.shape), tuple(layer.values.shape)) for layer in cache.layers}  # type: ignore[union-attr]
    except REFUSALS as error:
        raise ModelError(
            f"{name} cannot be exported: it keeps a state other than keys and values. {INSTEAD}"
        ) from error
    if len(shapes) != 1 or any(len(shape) != 4 or shape[0] != 1 or shape[2] != 2 for pair in shapes for shape in pair):
        raise ModelError(
            f"{name} cannot be exported: its layers do not all keep keys and values of the same shape. {INSTEAD}"
        )
    ((keys, values),) = shapes
    memory = ActivationSize(model, linear_head=True, supports_logits_to_keep=True)
    return Sizes(
        layers=len(cache.layers),
        heads=max(1, memory.heads),
        key=(keys[1], keys[3]),
        value=(values[1], values[3]),
        hidden=memory.hidden,
        inner=memory.inner,
    )


def _packed_states(model: PreTrainedModel, sizes: Sizes, rows: list[Row]) -> torch.Tensor:
    pack = lay_out(rows, least_trunk=1, piece=4)
    indices = {name: torch.from_numpy(array) for name, array in feeds_of(pack, 1).items()}
    indices |= {"predicts": torch.from_numpy(pack.predicts.ravel()), "reads": torch.zeros(1, dtype=torch.long)}
    nothing = {name: torch.zeros(sizes.layers, heads, 1, size) for name, (heads, size) in sizes.past.items()}
    with packed_attention_of(model):
        states, *_ = PackedDecoder(model)(**indices, **nothing)
    found: torch.Tensor = states.unflatten(0, pack.predicts.shape)
    return found
