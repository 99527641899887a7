"""Differentiable forward passes of causal models over embeddings."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from apportion.protocols.inside import EmbeddedBatch
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.edits import Here
from apportion_backends.torch.graph_size import GraphSize
from apportion_backends.torch.head import upcast
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.model_inside import Edited, ModelInside
from apportion_backends.torch.modes import evaluating
from apportion_backends.torch.prefix import PrefixStore

__all__ = ["DecoderInside"]


class DecoderInside(ModelInside):
    """Differentiable forward passes of a decoder-only model.

    Args:
        model: the model.
        traits: the model's traits.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        super().__init__(model, traits)
        self._prefixes = PrefixStore(model) if traits.prefix_sharing else None
        self._size: GraphSize | None = None

    def release(self) -> None:
        """Discard the encoded prefix."""
        if self._prefixes is not None:
            self._prefixes = PrefixStore(self._model)

    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory of one row's forward pass with what its backward pass needs, in bytes."""
        if self._size is None:
            self._size = self._measured()
        vocabulary = int(self._model.config.get_text_config().vocab_size)
        return self._size(prompt + target - 1) + 4 * 4 * target * vocabulary

    def _measured(self) -> GraphSize:
        base: nn.Module = self._model.base_model if self._linear_head else self._model

        def compute(length: int) -> Tensor:
            point = self.embeddings((0,) * length)[None].requires_grad_()
            states: Tensor = base(inputs_embeds=point, use_cache=False, return_dict=True)[0]
            return states

        with evaluating(self._model), torch.inference_mode(False), torch.enable_grad():
            return GraphSize.measured(self._model, compute)

    def _layer(self, *, target: bool) -> nn.Module:
        layer: nn.Module = self._model.get_input_embeddings()
        return layer

    def _last(
        self, points: Float[Tensor, "B P D"] | None, ids: tuple[int, ...], after: tuple[int, ...] = ()
    ) -> Float[Tensor, "B V"]:
        if points is None:
            read: dict[str, Any] = {"input_ids": torch.tensor([(*ids, *after)], device=input_device(self._model))}
        else:
            following = self.embeddings(after, target=True).to(points).expand(len(points), -1, -1)
            read = {"inputs_embeds": torch.cat([points, following], dim=1)}
        logits: Tensor = self._model(**read, use_cache=False, return_dict=True).logits
        return logits[:, -1]

    def _logits(self, batch: EmbeddedBatch, edited: Edited, here: Here, *, recompute: bool) -> Float[Tensor, "B T V"]:
        model = self._model
        prompts, cache = self._with_prefix(batch)
        start = prompts.shape[1] - 1
        read = torch.cat([part.to(prompts) for part in (prompts, self._following(batch))], dim=1)
        arguments: dict[str, Any] = {
            "inputs_embeds": edited(self._layer(target=False), read),
            "use_cache": bool(cache), "return_dict": True, **cache,
        }  # fmt: skip
        if self._linear_head:
            states = self._states(model.base_model, arguments, here, recompute=recompute)
            return self._logits_in_fp32(states[:, start:])
        if self._traits.supports_logits_to_keep:
            arguments["logits_to_keep"] = len(batch.target)
        logits: Tensor = model(**arguments).logits
        return upcast(logits if self._traits.supports_logits_to_keep else logits[:, start:])

    def _with_prefix(self, batch: EmbeddedBatch) -> tuple[Float[Tensor, "B P D"], dict[str, Any]]:
        """The prompts, and the cache that the prefix is in; without a cache, the prompts begin with it."""
        model = self._model
        prompts = batch.prompts.to(input_device(model), model.dtype)
        if not batch.prefix:
            return prompts, {}
        if self._prefixes is not None:
            # Not in inference mode, whose tensors no backward pass may read.
            with torch.inference_mode(False), torch.no_grad():
                cache: Cache | None = self._prefixes.get(batch.prefix)
            if cache is not None:
                return prompts, {cache_argument(model.base_model): cache}
        before = self.embeddings(batch.prefix).to(prompts).expand(len(prompts), -1, -1)
        return torch.cat([before, prompts], dim=1), {}
