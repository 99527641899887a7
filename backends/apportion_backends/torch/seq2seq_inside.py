"""Differentiable forward passes of encoder–decoder models over embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.protocols.inside import EmbeddedBatch
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.edits import Here
from apportion_backends.torch.encoder_decoder import EncoderDecoder
from apportion_backends.torch.graph_size import GraphSize
from apportion_backends.torch.head import upcast
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.model_inside import Edited, ModelInside
from apportion_backends.torch.modes import evaluating

__all__ = ["Seq2SeqInside"]

SOURCES = (4, 8)
"""Lengths of prompts with which the decoder's memory is measured: it grows in proportion to the prompt."""


class Seq2SeqInside(ModelInside):
    """Differentiable forward passes of an encoder–decoder model.

    Args:
        model: the model.
        traits: the model's traits.
        start: tokens that the decoder reads before a target.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits, start: tuple[int, ...]) -> None:
        super().__init__(model, traits)
        self.start = start
        self._halves = EncoderDecoder(model)
        self._sizes: tuple[GraphSize, ...] = ()

    def release(self) -> None:
        """Nothing is kept: the encoder reads all tokens of a prompt together."""

    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory of one row's forward pass with what its backward pass needs, in bytes."""
        if not self._sizes:
            self._sizes = self._measured()
        encoder, *decoders = self._sizes
        read = len(self.start) + target - 1
        short, long = (size(read) for size in decoders)
        slope = max(0.0, (long - short) / (SOURCES[1] - SOURCES[0]))
        written = self._halves.vocabularies[1] or 0
        return int(encoder(prompt) + short + slope * max(0, prompt - SOURCES[0])) + 4 * 4 * target * written

    def _measured(self) -> tuple[GraphSize, ...]:
        """Sizes of the encoder, and of the decoder after a short and a longer prompt."""

        def encode(length: int) -> Tensor:
            points = self.embeddings((0,) * length)[None].requires_grad_()
            states: Tensor = self._halves.encoder(inputs_embeds=points, return_dict=True)[0]
            return states

        def decode(states: Tensor, length: int) -> Tensor:
            points = self.embeddings((0,) * length, target=True)[None].requires_grad_()
            decoded: Tensor = self._halves.decoder(inputs_embeds=points, **self._halves.reading(states))[0]
            return decoded

        with evaluating(self._model), torch.inference_mode(False), torch.enable_grad():
            sizes = [GraphSize.measured(self._model, encode)]
            for source in SOURCES:
                states = encode(source).detach().requires_grad_()
                sizes.append(GraphSize.measured(self._model, partial(decode, states)))
        return tuple(sizes)

    def _layer(self, *, target: bool) -> nn.Module:
        half = self._halves.decoder if target else self._halves.encoder
        layer: nn.Module = half.get_input_embeddings()
        return layer

    def _last(
        self, points: Float[Tensor, "B P D"] | None, ids: tuple[int, ...], after: tuple[int, ...] = ()
    ) -> Float[Tensor, "B V"]:
        rows = 1 if points is None else len(points)
        device = input_device(self._model)
        start = torch.tensor((*self.start, *after), device=device).expand(rows, -1)
        if points is None:
            # All by token ids, as batches are read; the decoder reads embeddings below.
            read: dict[str, Any] = {"input_ids": torch.tensor([ids], device=device), "decoder_input_ids": start}
        else:
            begun = self.embeddings((*self.start, *after), target=True).expand(rows, -1, -1)
            read = {"inputs_embeds": points, "decoder_inputs_embeds": begun}
        logits: Tensor = self._model(**read, use_cache=False, return_dict=True).logits
        return logits[:, -1]

    def _logits(self, batch: EmbeddedBatch, edited: Edited, here: Here, *, recompute: bool) -> Float[Tensor, "B T V"]:
        prompts, read = self._embedded(batch, edited)
        first = len(self.start) - 1
        if not self._linear_head:
            given = {"inputs_embeds": prompts, "decoder_inputs_embeds": read}
            logits: Tensor = self._model(**given, use_cache=False, return_dict=True).logits
            return upcast(logits[:, first:])
        encoder, decoder = self._halves.encoder, self._halves.decoder
        states = self._states(encoder, {"inputs_embeds": prompts, "return_dict": True}, here, recompute=recompute)
        arguments = {"inputs_embeds": read, **self._halves.reading(states)}
        decoded = self._states(decoder, arguments, here, recompute=recompute)
        return self._logits_in_fp32(self._halves.scaled(decoded[:, first:]))

    def _embedded(self, batch: EmbeddedBatch, edited: Edited) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B Q D"]]:
        """Embeddings that the encoder and the decoder read, after edits."""
        rows = len(batch.prompts)
        before = self.embeddings(batch.prefix).expand(rows, -1, -1)
        start = self.embeddings(self.start, target=True).expand(rows, -1, -1)
        found = []
        for target, parts in ((False, (before, batch.prompts)), (True, (start, self._following(batch)))):
            whole = torch.cat([part.to(input_device(self._model), self._model.dtype) for part in parts], dim=1)
            found.append(edited(self._layer(target=target), whole))
        return found[0], found[1]
