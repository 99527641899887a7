"""Gradients and internals of a model; the model does not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.errors import CapabilityError, InputError, listing, suggestion
from apportion.protocols.inside import Trace
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.head import Head, upcast
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.modes import evaluating

__all__ = ["embeddings", "logits_of", "trace"]

INSTALLED = "_output_capturing_hooks_installed"
"""Attribute that ``transformers.utils.output_capturing`` sets on models with its hooks."""

_TRACING = threading.RLock()
"""Lock that is held while a model has temporary hooks, so that no thread removes those of another one."""


def embeddings(model: PreTrainedModel, ids: tuple[int, ...]) -> Float[Tensor, "L D"]:
    """Input embeddings of tokens, detached."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        found: Tensor = model.get_input_embeddings()(torch.tensor(ids, device=input_device(model)))
        return found.detach().clone()


def logits_of(
    model: PreTrainedModel, embedded: Float[Tensor, "B P D"], target: tuple[int, ...], traits: Traits
) -> Float[Tensor, "B T V"]:
    """Logits at the position before each target token, fp32 or better; differentiable.

    A linear output layer computes in fp32 or better, as it does when batches are scored.

    Args:
        model: the model.
        embedded: input embeddings of prompts of one length.
        target: token ids that follow each prompt; the last one is predicted and not read.
        traits: the model's traits.

    Raises:
        InputError: the embeddings do not have the model's width.
    """
    rows, prompt, width = embedded.shape
    with evaluating(model):
        tail = embeddings(model, target)
        if width != tail.shape[-1]:
            raise InputError(f"The embeddings are {width} wide, and those of this model {tail.shape[-1]}.")
        embedded = embedded.to(input_device(model), model.dtype)
        following = tail[:-1].expand(rows, -1, -1).to(embedded.dtype)
        arguments: dict[str, Any] = {
            "inputs_embeds": torch.cat([embedded, following], dim=1), "use_cache": False, "return_dict": True,
        }  # fmt: skip
        if traits.linear_head:
            head = Head.of(model)
            states = model.base_model(**arguments)[0][:, prompt - 1 :].to(head.weight.dtype)
            return _logits_in_fp32(states, head)
        if traits.supports_logits_to_keep:
            arguments["logits_to_keep"] = len(target)
        logits: Tensor = model(**arguments).logits
    logits = logits if traits.supports_logits_to_keep else logits[:, prompt - 1 :]
    return upcast(logits)


def _logits_in_fp32(states: Float[Tensor, "B T D"], head: Head) -> Float[Tensor, "B T V"]:
    """Logits as ``all_logits`` computes them, in one product.

    With a backward pass, writing slices in place took 1.5 to 1.8 times as long in fp32.
    """
    bias = None if head.bias is None else upcast(head.bias.detach())
    return head.capped(nn.functional.linear(upcast(states), upcast(head.weight.detach()), bias))


def trace(
    model: PreTrainedModel, ids: tuple[int, ...], *, hidden: bool, attentions: bool, modules: Sequence[str]
) -> Trace:
    """Internals of one forward pass, detached.

    Raises:
        InputError: the model has no module with this name, or the module returns no tensor.
        CapabilityError: attention weights were requested, which this backend does not provide.
    """
    if attentions:
        raise CapabilityError(
            "The torch backend does not give attention weights yet; ask for hidden states or modules."
        )
    outputs: dict[str, Tensor] = {}
    with evaluating(model), torch.no_grad(), _TRACING, _same_hooks(model), _recorded(model, modules, outputs):
        row = torch.tensor([ids], device=input_device(model))
        found = model(row, use_cache=False, return_dict=True, output_hidden_states=hidden)
    for name in modules:
        if name not in outputs:
            raise InputError(
                f"The module {name!r} gives no tensor: it is not called in a forward pass, or returns something else. "
                "Name modules inside it."
            )
    states = tuple(layer[0] for layer in found.hidden_states) if hidden else ()
    return Trace(states, modules=outputs)


@contextmanager
def _same_hooks(model: nn.Module) -> Iterator[None]:
    """Remove the hooks that transformers leaves on a model after it has returned hidden states."""
    before = [(module, list(module._forward_hooks), INSTALLED in vars(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks, installed in before:
            for key in [key for key in module._forward_hooks if key not in hooks]:
                del module._forward_hooks[key]
            if not installed and INSTALLED in vars(module):
                delattr(module, INSTALLED)


@contextmanager
def _recorded(model: nn.Module, names: Sequence[str], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Record the outputs of these modules in ``outputs`` inside the context."""
    known = {name: module for name, module in model.named_modules() if name}
    for name in names:
        if name not in known:
            raise InputError(
                f"The model has no module {name!r}. {suggestion(name, known)}Its modules: {listing(known, limit=12)}."
            )
    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(_hook(known[name], name, outputs))
        yield


@contextmanager
def _hook(module: nn.Module, name: str, outputs: dict[str, Tensor]) -> Iterator[None]:
    thread = threading.get_ident()

    def record(_: nn.Module, __: Any, output: Any) -> None:
        if threading.get_ident() != thread:
            return  # another run scores with this model
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor):
            outputs[name] = first.detach()[0].clone()

    handle = module.register_forward_hook(record)
    try:
        yield
    finally:
        handle.remove()
