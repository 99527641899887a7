"""Places of the value vectors of attention: modules, and columns of what they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from apportion.errors import CapabilityError, InputError, counted, listing
from apportion_plugins.methods.module_names import Layers, checked_layers, matching

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LAYOUTS", "VALUE_MODULES", "ValueModule", "columns", "value_modules"]

VALUE_MODULES = "value_modules"
"""Name of the option that names the modules."""

SEPARATE = ("v_proj", "v", "value", "v_lin", "wv")
"""Names of projections of values alone."""
FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv")
"""Names of projections of queries, keys and values."""
OUTPUTS = ("attn_sub_norm", "o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "wo")
"""Names of what reads the values after they were mixed."""
CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn", "encoder_decoder_attention")
"""Names of attention to a source."""
TEXT = ("language_model", "text_model")
"""Names of the half of a multimodal model that reads text."""
LAYOUTS = ("separate", "last block", "last of each group")
"""Columns of values: all; those after all queries and keys; those after the queries and the key of each group of heads.
Which one it is, the model's own numbers must prove."""


@dataclass(frozen=True, slots=True)
class ValueModule:
    """A module that returns value vectors, alone or after queries and keys.

    Attributes:
        name: its name.
        layer: name of the layer that it belongs to.
        attention: name of the module that attends.
        output: name of what reads the mixed values, if it is known by its name.
        layouts: layouts that its columns may have, the likelier first.
    """

    name: str
    layer: str
    attention: str
    output: str | None
    layouts: tuple[str, ...]


def value_modules(modules: Mapping[str, nn.Module], kind: str, given: Layers, *, joint: bool) -> list[ValueModule]:
    """The modules that return value vectors, one for each layer, in the model's order.

    Args:
        modules: all modules of the model, by name.
        kind: attention of an encoder–decoder model: ``"cross"``, ``"encoder"`` or ``"decoder"``.
        given: names or patterns of the modules, if the user gives them; ``None`` to find them.
        joint: the model is decoder-only.

    Raises:
        InputError: a name or pattern matches no module, or a module that is in no layer.
        CapabilityError: no module has a known name, or there are several stacks of layers.
    """
    chosen = checked_layers(given, VALUE_MODULES)
    if chosen is not None:
        names: Sequence[str] = matching(chosen, modules, VALUE_MODULES)
    else:
        names = [name for name in modules if _last(name) in (*SEPARATE, *FUSED) and _layer(name)]
        names = names if joint else [name for name in names if _kind(name) == kind]
        names = _one_stack(names)
    found = [_described(name, modules) for name in names]
    twice = next((one.layer for one in found if [other.layer for other in found].count(one.layer) > 1), None)
    if twice is not None:
        both = listing(one.name for one in found if one.layer == twice)
        raise InputError(f"The layer {twice!r} has several value projections, {both}. Name one: value_modules=…")
    if not found:
        raise CapabilityError(
            "No module of this model is known to return value vectors. Known are projections of values called "
            f"{listing(SEPARATE)} (Llama, Qwen, Gemma, Mistral, OPT, T5, …), and of queries, keys and values called "
            f"{listing(FUSED)} (GPT-2, GPT-NeoX, Falcon, BLOOM, Phi-3, MPT, …), inside numbered layers. Name yours, "
            "one per layer: value_modules='path.*.name'."
        )
    return found


def columns(layout: str, width: int, attention: nn.Module) -> Int[Tensor, "G D"] | None:
    """Columns of each value head among what a module returns.

    Args:
        layout: one of ``LAYOUTS``.
        width: width of what the module returns.
        attention: the module that attends, for the numbers of its heads.

    Returns:
        ``None`` if the width does not fit the layout.
    """
    size, heads = _setting(attention, SIZES), _setting(attention, HEADS)
    every = torch.arange(width)
    if layout == "separate":
        return every.view(-1, size) if size and width % size == 0 else every[None]
    if not size or not heads or width % size:
        return None
    groups, rest = divmod(width // size - heads, 2)
    if groups < 1 or rest or heads % groups:
        return None
    if layout == "last block":
        return every[-groups * size :].view(groups, size)
    return every.view(groups, -1, size)[:, -1]


SIZES = ("head_dim", "head_size", "key_value_proj_dim", "attention_head_size")
HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")


def _setting(attention: nn.Module, names: Sequence[str]) -> int | None:
    """A number that the module, or its configuration, has under one of these names."""
    holders: Iterator[Any] = iter((attention, getattr(attention, "config", None)))
    found = (getattr(holder, name, None) for holder in holders for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def _described(name: str, modules: Mapping[str, nn.Module]) -> ValueModule:
    layer = _layer(name)
    if layer is None:
        raise InputError(f"The module {name!r} is in no numbered layer, so there is no layer to compare without it.")
    attention = name.rpartition(".")[0]
    output = next((f"{attention}.{last}" for last in OUTPUTS if f"{attention}.{last}" in modules), None)
    layouts: tuple[str, ...]
    if _last(name) in SEPARATE:
        layouts = LAYOUTS[:1]
    elif _last(name) == "query_key_value":
        layouts = (LAYOUTS[2], LAYOUTS[1])
    else:
        layouts = LAYOUTS[1:] if _last(name) in FUSED else LAYOUTS
    return ValueModule(name, layer, attention, output, layouts)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _layer(name: str) -> str | None:
    """The name up to its first number; ``None`` without one."""
    parts = name.split(".")
    end = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return None if end is None or end == len(parts) - 1 else ".".join(parts[: end + 1])


def _kind(name: str) -> str:
    """The kind of attention that a module of an encoder–decoder model belongs to, by its name."""
    parts = name.split(".")
    if any(part in CROSS for part in parts):
        return "cross"
    return "encoder" if "encoder" in parts else "decoder"


def _one_stack(names: Sequence[str]) -> Sequence[str]:
    """The names in the only stack of layers, or in that of a multimodal model that reads text.

    Raises:
        CapabilityError: there are several.
    """
    stacks: dict[str, list[str]] = {}
    for name in names:
        stacks.setdefault((_layer(name) or "").rpartition(".")[0], []).append(name)
    text = {stack: members for stack, members in stacks.items() if set(stack.split(".")) & set(TEXT)}
    left = text if len(text) == 1 else stacks
    if len(left) > 1:
        raise CapabilityError(
            f"This model has {counted(len(left), 'stack')} of layers with value projections, {listing(left)}. Name "
            "the projections of one: value_modules='path.*.name'."
        )
    return next(iter(left.values()), [])
