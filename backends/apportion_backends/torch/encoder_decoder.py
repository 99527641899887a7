"""The halves of an encoder–decoder model, read apart or together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel

from apportion_backends.torch.inputs import input_device

__all__ = ["EncoderDecoder", "Sources", "half_config", "is_encoder_decoder"]


def is_encoder_decoder(model: nn.Module) -> bool:
    """True if a model reads its prompt in an encoder, and the target in a decoder, as its configuration says."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def half_config(config: PreTrainedConfig, half: str) -> PreTrainedConfig:
    """The configuration of the ``"encoder"`` or ``"decoder"``; that of the model, unless each has its own."""
    own = getattr(config, half, None)
    return own if isinstance(own, PreTrainedConfig) else config


@dataclass(frozen=True, slots=True)
class Sources:
    """Token ids of S prompts, padded on the right.

    Attributes:
        ids: the tokens.
        mask: 1 for tokens, and 0 for padding; ``None`` if nothing is padded.
    """

    ids: Int[Tensor, "S L"]
    mask: Int[Tensor, "S L"] | None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> Sources:
        """Pad prompts with a token, and move them to a device."""
        lengths = [len(row) for row in rows]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
        if min(lengths) == max(lengths):
            return cls(ids.to(device), None)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return cls(ids.to(device), mask.long().to(device))


class EncoderDecoder:
    """Reads prompts and targets with the halves of a model, without a cache.

    Args:
        model: an encoder–decoder model, in ``scoring_mode`` while it reads.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._config: Any = model.config

    @property
    def device(self) -> torch.device:
        """The device of inputs."""
        return input_device(self._model)

    @property
    def pad(self) -> int:
        """A token to fill up shorter prompts; masked, so that any would do."""
        pad = getattr(self._config, "pad_token_id", None)
        return pad if isinstance(pad, int) and pad >= 0 else 0

    @property
    def vocabularies(self) -> tuple[int | None, int | None]:
        """Number of token ids that the encoder reads, and that the decoder reads and writes; ``None`` if unknown."""
        read, decoded = (_rows(_embeddings(half), "num_embeddings") for half in (self.encoder, self.decoder))
        sizes = (decoded, _rows(self._model.get_output_embeddings(), "out_features"))
        return read, min((size for size in sizes if size is not None), default=read)

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder."""
        found: PreTrainedModel = self._model.get_encoder()
        return found

    @property
    def decoder(self) -> PreTrainedModel:
        """The decoder, without the output layer."""
        found: PreTrainedModel = self._model.get_decoder()
        return found

    def sources(self, rows: Sequence[Sequence[int]]) -> Sources:
        """Prompts as the encoder reads them."""
        return Sources.of(rows, self.pad, self.device)

    def encode(self, sources: Sources) -> Float[Tensor, "S L D"]:
        """The encoder's last hidden states."""
        found: Tensor = self.encoder(input_ids=sources.ids, attention_mask=sources.mask, return_dict=True)[0]
        return found

    def decode(
        self, ids: Int[Tensor, "B Q"], states: Float[Tensor, "B L D"], mask: Int[Tensor, "B L"] | None
    ) -> Float[Tensor, "B Q D"]:
        """The decoder's last hidden states, scaled as the output layer reads them."""
        found: Tensor = self.decoder(input_ids=ids.to(self.device), **self.reading(states, mask))[0]
        return self.scaled(found)

    def reading(self, states: Float[Tensor, "B L D"], mask: Int[Tensor, "B L"] | None = None) -> dict[str, Any]:
        """Arguments by which the decoder reads the encoder's states."""
        return {
            "encoder_hidden_states": states, "encoder_attention_mask": mask, "use_cache": False, "return_dict": True,
        }  # fmt: skip

    def scaled(self, states: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """States as the output layer reads them: T5 and its like scale them if that layer is the embedding."""
        scales = getattr(self._config, "scale_decoder_outputs", None)
        if scales is None:
            scales = hasattr(self._model, "model_dim") and self._config.tie_word_embeddings
        return states * self._config.d_model**-0.5 if scales else states

    def whole(self, sources: Sources, ids: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q V"]:
        """The model's own logits, from its own forward."""
        found: Tensor = self._model(
            input_ids=sources.ids,
            attention_mask=sources.mask,
            decoder_input_ids=ids.to(self.device),
            use_cache=False,
            return_dict=True,
        ).logits
        return found


def _embeddings(half: nn.Module) -> nn.Module | None:
    found: Any = getattr(half, "get_input_embeddings", lambda: getattr(half, "embed_tokens", None))()
    return found if isinstance(found, nn.Module) else None


def _rows(layer: nn.Module | None, attribute: str) -> int | None:
    size = getattr(layer, attribute, None)
    return size if isinstance(size, int) else None
