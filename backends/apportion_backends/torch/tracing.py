"""Hidden states, attention weights and outputs of modules of one forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from apportion.errors import CapabilityError
from apportion.protocols.inside import NO_EDITS, Edits, Trace
from apportion_backends.torch.edits import Here, editing, same_hooks
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.modes import evaluating

__all__ = ["RecordedAttention", "gives_attention", "recording", "recording_attention", "trace"]


def trace(
    model: PreTrainedModel,
    ids: tuple[int, ...],
    *,
    hidden: bool,
    attentions: bool,
    modules: Sequence[str],
    edits: Edits = NO_EDITS,
) -> Trace:
    """Internals of one forward pass of a decoder-only model over some tokens.

    Raises:
        InputError: the model has no module with this name, or the module returns no tensor.
        CapabilityError: attention weights were requested, which this model does not give.
    """
    outputs: dict[str, Tensor] = {}
    with (
        evaluating(model),
        torch.no_grad(),
        same_hooks(model),
        recording(model, modules, outputs, edits),
        recording_attention(model, wanted=attentions) as recorded,
    ):
        row = torch.tensor([ids], device=input_device(model))
        found = model(row, use_cache=False, return_dict=True, output_hidden_states=hidden, **recorded.arguments)
    states = tuple(layer[0] for layer in found.hidden_states) if hidden else ()
    weights = recorded.of(found, "attentions") if attentions else ()
    return Trace(states, weights, outputs)


@contextmanager
def recording(
    model: nn.Module, names: Sequence[str], outputs: dict[str, Tensor], edits: Edits = NO_EDITS
) -> Iterator[None]:
    """Context in which the outputs of modules are recorded in ``outputs``, after edits were applied."""
    here = Here()

    def record(name: str) -> Callable[[nn.Module, Tensor | None, Tensor], Tensor]:
        edit = edits.outputs.get(name)

        def look(module: nn.Module, read: Tensor | None, output: Tensor) -> Tensor:
            new = output if edit is None else edit(module, read, output)
            outputs[name] = new.detach()[0].clone()
            return new

        return look

    looks = Edits({**edits.outputs, **{name: record(name) for name in names}}, edits.inputs)
    with editing(model, looks, here) as check, here.computing():
        yield
        check()


class RecordedAttention(TorchFunctionMode):
    """Attention weights of a forward pass in this thread, computed again from its queries and keys.

    Args:
        implementation: how the model attends; one that returns weights itself is asked for them.
    """

    def __init__(self, implementation: str) -> None:
        super().__init__()
        self._asks = implementation != "sdpa"
        self.weights: list[Float[Tensor, "H L M"]] = []

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the model's forward."""
        return {"output_attentions": True} if self._asks else {}

    def of(self, output: Any, *names: str) -> tuple[Float[Tensor, "H L M"], ...]:
        """The weights of all layers, in order: those recorded, or those that the model returned under these names.

        Raises:
            CapabilityError: there are none.
        """
        found = self.weights
        if self._asks:
            found = [layer[0] for name in names for layer in getattr(output, name, None) or () if layer is not None]
        if not found:
            raise CapabilityError(
                "This model gives no attention weights: it does not attend, or not by an implementation that can be "
                "observed. Load it with attn_implementation='eager', or use another method."
            )
        return tuple(layer.detach().float() if layer.dtype.itemsize < 4 else layer.detach() for layer in found)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what the model asks for, and record the weights of its attention."""
        if func is functional.scaled_dot_product_attention and not self._asks:
            self.weights.append(attention_weights(*args, **kwargs or {})[0])
        return func(*args, **kwargs or {})


@contextmanager
def recording_attention(model: PreTrainedModel, *, wanted: bool) -> Iterator[RecordedAttention]:
    """Context in which attention weights are recorded, if they are wanted."""
    recorded = RecordedAttention("sdpa" if not wanted else implementation_of(model))
    with ExitStack() as contexts:
        if wanted:
            contexts.enter_context(recorded)
        yield recorded


def implementation_of(model: PreTrainedModel) -> str:
    """How a model attends, such as ``"sdpa"`` or ``"eager"``."""
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
) -> Float[Tensor, "B H L M"]:
    """The weights that ``scaled_dot_product_attention`` applies, in fp32 or better."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(dtype), key.to(dtype)
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        above = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(above, -torch.inf)
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if allowed else scores + attn_mask.to(dtype)
    return scores.softmax(-1)
