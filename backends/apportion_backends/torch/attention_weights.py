"""Attention weights of a forward pass, each proven to be what the model multiplies its values with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from apportion.errors import CapabilityError
from apportion_backends.torch.edits import HOOKS_LOCK, Here, named_modules

__all__ = ["RecordedAttention", "gives_attention", "recording_attention"]

PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
"""Operations by which models that attend by their own code multiply weights with values."""
NOT_PROVEN = "Use a gradient or perturbation method, which does not depend on how a model attends."


@dataclass(frozen=True, slots=True)
class Attended:
    """Weights that were applied, and the module that did."""

    module: str
    weights: Float[Tensor, "H L M"]


class RecordedAttention(TorchFunctionMode):
    """Attention weights of a forward pass in this thread.

    Those of ``scaled_dot_product_attention`` are computed again from queries and keys, and must give its result. Those
    that a model computes by its own code are what it returns, and must have been multiplied with something.

    Args:
        implementation: how the model attends; one that returns weights itself is asked for them.
        running: names of the modules that are running, the innermost last.
        tokens: number of tokens that attend, if all layers read the same.
        last: record the weights of so many last tokens; ``None`` for all.
    """

    def __init__(
        self, implementation: str, running: list[str], tokens: int | None = None, last: int | None = None
    ) -> None:
        super().__init__()
        self._asks = implementation != "sdpa"
        self._running = running
        self._tokens = tokens
        self._last = last
        self._found: list[Attended] = []
        self._multiplied: list[Attended] = []

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the model's forward."""
        return {"output_attentions": True} if self._asks else {}

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that attended, one for each of the weights that ``of`` returned."""
        return tuple(one.module for one in self._found)

    @property
    def fused(self) -> bool:
        """The weights are those of fused operations, in the order in which they ran."""
        return not self._asks

    def of(self, output: Any, *names: str) -> tuple[Float[Tensor, "H L M"], ...]:
        """The weights of all layers, in order: all those recorded, or those that the model returned under these names.

        Raises:
            CapabilityError: there are none, or they are not what the model attends with.
        """
        before = 0
        if self._asks:
            before = len(self._found)
            returned = [layer[0] for name in names for layer in getattr(output, name, None) or () if layer is not None]
            for layer in returned:
                self._found.append(self._applied(layer))
        if len(self._found) == before:
            raise CapabilityError(
                "This model gives no attention weights: it does not attend, or not by an implementation that can be "
                "observed. Load it with attn_implementation='eager', or use another method."
            )
        for name in self.modules:
            self._require_once(name, self.modules)
        return tuple(_checked(one) for one in self._found[before:])

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what the model asks for, and record the weights of its attention."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self._found.append(self._fused(output, *args, **kwargs))
        elif self._asks and func in PRODUCTS and isinstance(args[0], Tensor) and args[0].ndim > 2:
            self._multiplied.append(Attended(self._module(), args[0].detach()))
        return output

    def _module(self) -> str:
        return self._running[-1] if self._running else ""

    def _fused(self, output: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Attended:
        """Weights of the fused operation, with which it must have given its result."""
        lone = self._tokens == 1  # transformers may then pass the heads of a group as if they were its tokens
        last = None if lone else self._last
        weights = attention_weights(query, key, value, *args, **kwargs, last=last)
        module = self._module()
        _require_product(module, weights, value, output[..., -weights.shape[-2] :, :])
        return Attended(module, weights[0].flatten(0, 1)[:, None] if lone else weights[0])

    def _applied(self, returned: Float[Tensor, "H L M"]) -> Attended:
        """Returned weights, with the module that multiplied them with something.

        Raises:
            CapabilityError: none did, or one did twice.
        """
        same = [one for one in self._multiplied if _same(one.weights, returned)]
        # Some models return a copy, and layers may attend alike.
        exactly = [one for one in same if one.weights.data_ptr() == returned.data_ptr()] or same
        module = next((one.module for one in exactly if one.module not in self.modules), None)
        if module is None:
            raise CapabilityError(
                "The model returns attention weights that it did not multiply with values in this forward pass, so "
                f"they are not proven to be those that it attends with. {NOT_PROVEN}"
            )
        self._require_once(module, [one.module for one in same])
        rows = returned if self._last is None else returned[:, -self._last :]
        return Attended(module, rows.detach().clone())

    def _require_once(self, module: str, modules: Sequence[str]) -> None:
        """Refuse a module that attends several times.

        Raises:
            CapabilityError: it is among the modules more than once.
        """
        if modules.count(module) > 1:
            raise CapabilityError(
                f"The module {module!r} attends more than once in a forward pass, and combines the results, so no set "
                f"of weights says what it attends to. {NOT_PROVEN}"
            )


@contextmanager
def recording_attention(
    model: PreTrainedModel, *, wanted: bool, tokens: int | None = None, last: int | None = None
) -> Iterator[RecordedAttention]:
    """Context in which attention weights are recorded, if they are wanted.

    Args:
        model: the model.
        wanted: record them.
        tokens: number of tokens that attend, if all layers read the same.
        last: record the weights of so many last tokens; ``None`` for all.
    """
    running: list[str] = []
    recorded = RecordedAttention("sdpa" if not wanted else implementation_of(model), running, tokens, last)
    with ExitStack() as contexts:
        if wanted:
            contexts.enter_context(_naming(model, running))
            contexts.enter_context(recorded)
        yield recorded


@contextmanager
def _naming(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Context in which ``running`` has the names of the modules that run in this thread."""
    here = Here()

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if here.active:
                running.append(name)

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if here.active:
            running.pop()

    with HOOKS_LOCK, ExitStack() as hooks, here.computing():
        for name, module in named_modules(model).items():
            hooks.callback(module.register_forward_pre_hook(enter(name), prepend=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield


def implementation_of(model: PreTrainedModel) -> str:
    """Implementation of a model's attention, such as ``"sdpa"`` or ``"eager"``."""
    return str(getattr(model.config.get_text_config(), "_attn_implementation", None) or "eager")


def gives_attention(model: PreTrainedModel) -> bool:
    """True if the attention of a model can be observed."""
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
    return bool(heads) and implementation_of(model) in ("sdpa", "eager")


def attention_weights(
    query: Float[Tensor, "B H L D"],
    key: Float[Tensor, "B G M D"],
    value: Float[Tensor, "B G M D"],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    last: int | None = None,
) -> Float[Tensor, "B H L M"]:
    """The weights that ``scaled_dot_product_attention`` applies, in fp32 or better; of the last rows if wanted."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    before = max(0, query.shape[-2] - last) if last is not None else 0
    query, key = query[..., before:, :].to(dtype), key.to(dtype)
    scores = query @ _for_heads(key, query).transpose(-2, -1)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        above = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1 + before)
        scores = scores.masked_fill(above, -torch.inf)
    if attn_mask is not None:
        attn_mask = attn_mask[..., before:, :] if attn_mask.shape[-2] > 1 else attn_mask
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if allowed else scores + attn_mask.to(dtype)
    return scores.softmax(-1)


def _for_heads(grouped: Float[Tensor, "B G M D"], heads: Float[Tensor, "B H L D"]) -> Float[Tensor, "B H M D"]:
    """Keys or values of groups, for each head."""
    count = heads.shape[1] // grouped.shape[1]
    return grouped if count == 1 else grouped.repeat_interleave(count, dim=1)


def _require_product(
    module: str, weights: Float[Tensor, "B H L M"], value: Float[Tensor, "B G M D"], output: Float[Tensor, "B H L D"]
) -> None:
    """Check that an operation gave the product of weights and values, but for rounding.

    Raises:
        CapabilityError: it did not, because it drops some weights at random, for example.
    """
    product = weights @ _for_heads(value, weights).to(weights.dtype)
    off, largest = (product - output).abs().max(), value.abs().max()
    # Written so that NaN fails.
    if not bool(off <= _rounding(output.dtype) * largest.to(off.dtype)):
        raise CapabilityError(
            f"The module {module!r} attends with other weights than those computed again from its queries and keys: "
            f"its output differs from theirs by up to {float(off):.3g}, where values reach {float(largest):.3g}. "
            f"{NOT_PROVEN}"
        )


def _rounding(dtype: torch.dtype) -> float:
    """Difference that rounding may make: sums of exponentials of rounded products, and faster products on GPUs."""
    return {torch.float64: 1e-6, torch.float32: 5e-3}.get(dtype, 0.05)


def _same(multiplied: Tensor, returned: Float[Tensor, "H L M"]) -> bool:
    """True if weights that were multiplied are those that were returned, in whatever shape and precision."""
    if multiplied.numel() != returned.numel() or multiplied.shape[-2:] != returned.shape[-2:]:
        return False
    allowed = max(torch.finfo(one.dtype).eps for one in (multiplied, returned))
    return torch.allclose(multiplied.reshape(returned.shape).double(), returned.double(), rtol=2 * allowed, atol=1e-12)


def _checked(one: Attended) -> Float[Tensor, "H L M"]:
    """Weights in fp32 or better.

    Raises:
        CapabilityError: they are negative, or a row adds up to more than 1.
    """
    weights = one.weights.float() if one.weights.dtype.itemsize < 4 else one.weights
    least, most = float(weights.min()), float(weights.sum(-1).max())
    slack = 10 * torch.finfo(one.weights.dtype).eps + 1e-6
    if least < 0 or not most <= 1 + slack:
        raise CapabilityError(
            f"What the module {one.module!r} attends with are not shares: the least is {least:.3g}, and a row adds up "
            f"to {most:.4g}. {NOT_PROVEN}"
        )
    return weights.detach()
