"""Hidden states, attention weights and outputs of modules of one forward pass of an encoder–decoder model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import CapabilityError
from apportion.protocols.inside import Edits, Trace
from apportion_backends.torch.attention_weights import RecordedAttention, recording_attention
from apportion_backends.torch.edits import same_hooks
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.modes import evaluating
from apportion_backends.torch.tracing import recording

__all__ = ["trace_halves"]

Weights = tuple[Float[Tensor, "H L M"], ...]

UNTOLD = (
    "The attention weights of this model's decoder cannot be told from those to the prompt. Load it with "
    "attn_implementation='eager', or use another method."
)


def trace_halves(
    model: PreTrainedModel,
    prompt: tuple[int, ...],
    decoder_ids: tuple[int, ...],
    *,
    hidden: bool,
    attentions: bool,
    modules: Sequence[str],
    edits: Edits,
    last: int | None = None,
) -> Trace:
    """Internals of one forward pass, the encoder's first.

    Args:
        model: an encoder–decoder model.
        prompt: tokens that the encoder reads.
        decoder_ids: tokens that the decoder reads.
        hidden: return hidden states.
        attentions: return attention weights.
        modules: names of modules whose outputs are returned.
        edits: changes to what modules return or read.
        last: attention weights of so many last tokens of the decoder alone; ``None`` for all.

    Raises:
        InputError: the model has no module with this name, or the module returns no tensor.
        CapabilityError: attention weights were requested, which this model does not give.
    """
    outputs: dict[str, Tensor] = {}
    source, target = (torch.tensor([ids], device=input_device(model)) for ids in (prompt, decoder_ids))
    plain: dict[str, Any] = {"return_dict": True, "output_hidden_states": hidden}
    with (
        evaluating(model),
        torch.no_grad(),
        same_hooks(model),
        recording(model, modules, outputs, edits),
    ):
        with recording_attention(model, wanted=attentions, tokens=len(prompt)) as reading:
            encoded = model.get_encoder()(source, **plain, **reading.arguments)
        with recording_attention(model, wanted=attentions, tokens=len(decoder_ids), last=last) as writing:
            found = model(
                encoder_outputs=encoded, decoder_input_ids=target, use_cache=False, **plain, **writing.arguments
            )
    read = reading.of(encoded, "attentions") if attentions else ()
    own, cross, names = _attention_of_decoder(writing, found) if attentions else ((), (), ())
    if not all(_causal(layer, len(decoder_ids)) for layer in own) or any(one.shape[-1] != len(prompt) for one in cross):
        raise CapabilityError(UNTOLD)
    return Trace(
        hidden=_rows(found.decoder_hidden_states) if hidden else (),
        attentions=own,
        modules=outputs,
        encoder_hidden=_rows(encoded.hidden_states) if hidden else (),
        encoder_attentions=read,
        cross_attentions=cross,
        attention_modules=names,
    )


def _rows(states: Sequence[Float[Tensor, "1 L D"]]) -> tuple[Float[Tensor, "L D"], ...]:
    return tuple(layer[0] for layer in states)


def _causal(weights: Float[Tensor, "H L M"], tokens: int) -> bool:
    """True if the last tokens attend to themselves and to earlier ones."""
    rows, columns = weights.shape[-2:]
    return columns == tokens and float(weights.triu(1 + columns - rows).abs().max()) == 0.0


def _attention_of_decoder(recorded: RecordedAttention, found: Any) -> tuple[Weights, Weights, tuple[str, ...]]:
    """The weights of attention to the target, those to the prompt, and names of the modules with the former.

    Raises:
        CapabilityError: there are none, or a layer does not attend first to the one and then to the other.
    """
    if recorded.fused:
        every = recorded.of(found)
        own, cross, names = every[::2], every[1::2], recorded.modules[::2]
    else:
        own, names = recorded.of(found, "decoder_attentions"), recorded.modules
        cross = recorded.of(found, "cross_attentions")
    if len(own) != len(cross):
        raise CapabilityError(UNTOLD)
    return own, cross, names
