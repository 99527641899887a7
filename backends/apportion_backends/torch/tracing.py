"""Hidden states, attention weights and outputs of modules of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.protocols.inside import NO_EDITS, Edits, Trace
from apportion_backends.torch.attention_weights import recording_attention
from apportion_backends.torch.edits import Here, editing, same_hooks
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.modes import evaluating

__all__ = ["recording", "trace"]


def trace(
    model: PreTrainedModel,
    ids: tuple[int, ...],
    *,
    hidden: bool,
    attentions: bool,
    modules: Sequence[str],
    edits: Edits = NO_EDITS,
    last: int | None = None,
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
        recording_attention(model, wanted=attentions, tokens=len(ids), last=last) as recorded,
    ):
        row = torch.tensor([ids], device=input_device(model))
        found = model(row, use_cache=False, return_dict=True, output_hidden_states=hidden, **recorded.arguments)
    states = tuple(layer[0] for layer in found.hidden_states) if hidden else ()
    weights = recorded.of(found, "attentions") if attentions else ()
    return Trace(states, weights, outputs, attention_modules=recorded.modules if attentions else ())


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
