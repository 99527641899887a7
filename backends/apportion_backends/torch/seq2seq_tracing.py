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
        last: return the decoder's attention weights of so many last tokens alone.

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
        with recording_attention(model, wanted=attentions) as reading:
            encoded = model.get_encoder()(source, **plain, **reading.arguments)
        with recording_attention(model, wanted=attentions, last=last) as writing:
            found = model(
                encoder_outputs=encoded, decoder_input_ids=target, use_cache=False, **plain, **writing.arguments
            )
    read = reading.of(encoded, "attentions") if attentions else ()
    own, cross = _attention_of_decoder(writing, found, len(decoder_ids)) if attentions else ((), ())
    return Trace(
        hidden=_rows(found.decoder_hidden_states) if hidden else (),
        attentions=own,
        modules=outputs,
        encoder_hidden=_rows(encoded.hidden_states) if hidden else (),
        encoder_attentions=read,
        cross_attentions=cross,
    )


def _rows(states: Sequence[Float[Tensor, "1 L D"]]) -> tuple[Float[Tensor, "L D"], ...]:
    return tuple(layer[0] for layer in states)


def _attention_of_decoder(recorded: RecordedAttention, found: Any, decoder_tokens: int) -> tuple[Weights, Weights]:
    """The weights of attention to the target, and to the prompt.

    Raises:
        CapabilityError: there are none, or a layer does not attend first to the one and then to the other.
    """
    weights = recorded.of(found, "decoder_attentions", "cross_attentions")
    half = len(weights) // 2
    # A model returns one kind after the other; layers attend in turn.
    own, cross = (weights[:half], weights[half:]) if recorded.asks else (weights[::2], weights[1::2])
    if len(own) != len(cross) or any(layer.shape[-1] != decoder_tokens for layer in own):
        raise CapabilityError(
            "The attention weights of this model's decoder cannot be told from those to the prompt. Load it with "
            "attn_implementation='eager', or use another method."
        )
    return own, cross
