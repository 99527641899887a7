"""Differentiable forward passes over embeddings; the model does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from apportion.errors import CapabilityError, InputError
from apportion.protocols.inside import Edits, EmbeddedBatch
from apportion_backends.torch.edits import Here, editing, named_modules
from apportion_backends.torch.gradient_check import computed_by_torch, gradient_is_right
from apportion_backends.torch.graph_size import GraphSize
from apportion_backends.torch.head import Head, upcast
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.memory import translate_out_of_memory
from apportion_backends.torch.modes import evaluating
from apportion_backends.torch.prefix import PrefixStore
from apportion_backends.torch.probe import Traits
from apportion_backends.torch.recompute import recomputing

__all__ = ["DecoderInside", "embeddings"]

LEAST_ROWS = 4
"""Rows of a product with the output layer. With fewer, the products of its backward pass, which add up as many numbers
as there are tokens, had ten times the rounding error on a CPU in fp32, and took longer."""

PROBED = (1, 2, 3, 4)
"""Tokens on which embeddings are compared with token ids."""


def embeddings(model: PreTrainedModel, ids: tuple[int, ...]) -> Float[Tensor, "L D"]:
    """Input embeddings of tokens, detached."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        found: Tensor = model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=input_device(model)))
        return found.detach().clone()


class DecoderInside:
    """Differentiable forward passes of a decoder-only model.

    Args:
        model: the model.
        traits: the model's traits.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self._model = model
        self._traits = traits
        self._prefixes = PrefixStore(model) if traits.prefix_sharing else None
        self._size: GraphSize | None = None
        self._checked = False
        self._recomputes: bool | None = None

    def release(self) -> None:
        """Discard the encoded prefix."""
        if self._prefixes is not None:
            self._prefixes = PrefixStore(self._model)

    @contextmanager
    def forward(self, batch: EmbeddedBatch, *, recompute: bool = False) -> Iterator[Float[Tensor, "B T V"]]:
        """Context of a forward pass and its backward passes; see ``InsideSession``."""
        here = Here()
        edits, embedded = self._split(batch.edits)
        with translate_out_of_memory(), evaluating(self._model), editing(self._model, edits, here) as check:
            self._check(batch)
            with here.computing():
                logits = self._logits(batch, embedded, here, recompute=recompute)
            check()
            yield logits

    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory of one row's forward pass with what its backward pass needs, in bytes."""
        if self._size is None:
            self._size = self._measured()
        vocabulary = int(self._model.config.get_text_config().vocab_size)
        return self._size(prompt + target - 1) + 4 * 4 * target * vocabulary

    def _measured(self) -> GraphSize:
        def compute(length: int) -> Tensor:
            point = embeddings(self._model, (0,) * length)[None].requires_grad_()
            states: Tensor = self._base()(inputs_embeds=point, use_cache=False, return_dict=True)[0]
            return states

        with evaluating(self._model), torch.inference_mode(False), torch.enable_grad():
            return GraphSize.measured(self._model, compute)

    def _base(self) -> nn.Module:
        return self._model.base_model if self._traits.linear_head else self._model

    def _check(self, batch: EmbeddedBatch) -> None:
        """Refuse embeddings that the model cannot read.

        Raises:
            InputError: the embeddings do not have the model's width.
            CapabilityError: the model reads more than embeddings.
        """
        width = embeddings(self._model, batch.target[:1]).shape[-1]
        if batch.prompts.shape[-1] != width:
            raise InputError(f"The embeddings are {batch.prompts.shape[-1]} wide, and those of this model {width}.")
        if not self._checked:
            with torch.inference_mode(False), torch.enable_grad():
                self._check_model()
            self._checked = True

    def _check_model(self) -> None:
        """Refuse a model that reads more than embeddings, or whose gradients are wrong.

        Raises:
            CapabilityError: the model is such a one.
        """
        plain: dict[str, Any] = {"use_cache": False, "return_dict": True}
        point = embeddings(self._model, PROBED)[None]

        def compute(points: Float[Tensor, "B P D"]) -> Float[Tensor, "B V"]:
            logits: Tensor = self._model(inputs_embeds=points.to(point), **plain).logits
            return upcast(logits[:, -1])

        with torch.no_grad():
            ids = torch.tensor([PROBED], device=input_device(self._model))
            by_id = upcast(self._model(ids, **plain).logits[:, -1])
            same = torch.allclose(by_id, compute(point), rtol=1e-3, atol=1e-3 * float(by_id.abs().max()))
        if not same:
            raise CapabilityError(
                "This model reads more of a token than its input embedding, so gradients with respect to embeddings "
                "are not those of its tokens. Use a perturbation method."
            )
        if not computed_by_torch(self._model) and not gradient_is_right(compute, point, self._model.dtype):
            raise CapabilityError(
                "The gradients of this model differ from finite differences of its scores: an operation of its "
                "quantised weights, or of code that PyTorch does not know, has no gradient. Use a perturbation method, "
                "or load the weights unquantised."
            )

    def _split(self, edits: Edits) -> tuple[Edits, Callable[[Tensor], Tensor] | None]:
        """Take apart the edit of the input embeddings, whose module is not called where these are given."""
        layer, known = self._model.get_input_embeddings(), named_modules(self._model)
        name = next((name for name in edits.outputs if known.get(name) is layer), None)
        if name is None:
            return edits, None
        others = {other: edit for other, edit in edits.outputs.items() if other != name}
        return Edits(others, edits.inputs), partial(edits.outputs[name], layer, None)

    def _logits(
        self, batch: EmbeddedBatch, edit: Callable[[Tensor], Tensor] | None, here: Here, *, recompute: bool
    ) -> Float[Tensor, "B T V"]:
        """Logits before each target token, fp32 or better.

        Args:
            batch: prompts and target.
            edit: changes the embeddings of all tokens.
            here: is active while the model computes.
            recompute: compute layers again in backward passes.
        """
        model, rows = self._model, len(batch.prompts)
        following = batch.following
        if following is None:
            following = embeddings(model, batch.target[:-1]).expand(rows, -1, -1)
        prompts, cache = self._with_prefix(batch)
        start = prompts.shape[1] - 1
        read = torch.cat([part.to(prompts) for part in (prompts, following)], dim=1)
        arguments: dict[str, Any] = {
            "inputs_embeds": read if edit is None else edit(read),
            "use_cache": bool(cache), "return_dict": True, **cache,
        }  # fmt: skip
        if self._traits.linear_head:
            head = Head.of(model)
            states = self._states(arguments, here, recompute=recompute)[:, start:].to(head.weight.dtype)
            return _logits_in_fp32(states, head)
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
        before = embeddings(model, batch.prefix).to(prompts).expand(len(prompts), -1, -1)
        return torch.cat([before, prompts], dim=1), {}

    def _states(self, arguments: dict[str, Any], here: Here, *, recompute: bool) -> Float[Tensor, "B L D"]:
        """Last hidden states; layer by layer in backward passes if asked for, and if that gives the same states."""
        base: nn.Module = self._model.base_model
        again = recomputing(base, here) if recompute and self._recomputes is not False else None
        if again is None:
            states: Tensor = base(**arguments)[0]
            return states
        states = again(**arguments)[0]
        if self._recomputes is None:
            with torch.no_grad():
                self._recomputes = torch.equal(base(**arguments)[0], states)
            return self._states(arguments, here, recompute=recompute) if not self._recomputes else states
        return states


def _logits_in_fp32(states: Float[Tensor, "B T D"], head: Head) -> Float[Tensor, "B T V"]:
    """Logits as ``all_logits`` computes them, in one product.

    With a backward pass, writing slices in place took 1.5 to 1.8 times as long in fp32.
    """
    bias = None if head.bias is None else upcast(head.bias.detach())
    rows = upcast(states).flatten(0, 1)
    enough = nn.functional.pad(rows, (0, 0, 0, max(0, LEAST_ROWS - len(rows))))
    logits = nn.functional.linear(enough, upcast(head.weight.detach()), bias)[: len(rows)]
    return head.capped(logits.reshape(*states.shape[:2], -1))
