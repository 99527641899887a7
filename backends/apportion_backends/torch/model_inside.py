"""Differentiable forward passes over embeddings: what does not depend on how the model reads its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.errors import CapabilityError, InputError, listing
from apportion.protocols.inside import Edits, EmbeddedBatch
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.edits import Here, editing, named_modules
from apportion_backends.torch.gradient_check import computed_by_torch, gradient_is_right
from apportion_backends.torch.head import Head, upcast
from apportion_backends.torch.inputs import input_device, ordinary_ids, padding_ids
from apportion_backends.torch.memory import translate_out_of_memory
from apportion_backends.torch.modes import evaluating
from apportion_backends.torch.recompute import recomputing

__all__ = ["Edited", "ModelInside"]

LEAST_ROWS = 4
"""Rows of a product with the output layer. With fewer, the products of its backward pass, which add up as many numbers
as there are tokens, had ten times the rounding error on a CPU in fp32, and took longer."""

PROBED = 4
"""Number of tokens on which embeddings are compared with token ids."""

Edited = Callable[[nn.Module, Tensor], Tensor]
"""What an embedding layer returns after edits, from the layer and what it returned."""


class ModelInside(ABC):
    """Differentiable forward passes of a model, which does not change.

    Args:
        model: the model.
        traits: the model's traits.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self._model = model
        self._traits = traits
        self._checked = False
        self._uneven: frozenset[int] = frozenset()
        self._recomputes: dict[nn.Module, bool] = {}

    @abstractmethod
    def release(self) -> None:
        """Discard what is kept between runs, because the model may change."""

    @abstractmethod
    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory of one row's forward pass with what its backward pass needs, in bytes."""

    @abstractmethod
    def _layer(self, *, target: bool) -> nn.Module:
        """The embedding layer of prompts, or of targets."""

    @abstractmethod
    def _logits(self, batch: EmbeddedBatch, edited: Edited, here: Here, *, recompute: bool) -> Float[Tensor, "B T V"]:
        """Logits before each target token, fp32 or better.

        Args:
            batch: prompts and target.
            edited: edits what an embedding layer returns.
            here: is active while the model computes.
            recompute: compute layers again in backward passes.
        """

    @abstractmethod
    def _last(
        self, points: Float[Tensor, "B P D"] | None, ids: tuple[int, ...], after: tuple[int, ...] = ()
    ) -> Float[Tensor, "B V"]:
        """Logits of the next token of a target, after prompts and tokens of the target.

        Args:
            points: embeddings of prompts; ``None`` to read everything by token ids.
            ids: the prompt, read if there are no embeddings.
            after: tokens of the target, read by their embeddings if the prompts are.
        """

    @property
    def _linear_head(self) -> bool:
        """True if logits are computed from the head's weights; not if a user's hook is to see their gradients."""
        called = (self._model, self._model.get_output_embeddings())
        hooked = any(module._backward_hooks or module._backward_pre_hooks for module in called if module is not None)
        return self._traits.linear_head and not hooked

    def embeddings(self, ids: tuple[int, ...], *, target: bool = False) -> Float[Tensor, "L D"]:
        """Embeddings of the tokens of a prompt or target, detached."""
        with evaluating(self._model), torch.inference_mode(False), torch.no_grad():
            read = torch.tensor([ids], dtype=torch.long, device=input_device(self._model))
            found: Tensor = self._layer(target=target)(read)[0]
            return found.detach().clone()

    @contextmanager
    def forward(self, batch: EmbeddedBatch, *, recompute: bool = False) -> Iterator[Float[Tensor, "B T V"]]:
        """Context of a forward pass and its backward passes; see ``InsideSession``."""
        here = Here()
        edits, edited = self._split(batch.edits)
        with translate_out_of_memory(), evaluating(self._model), editing(self._model, edits, here) as check:
            self._check(batch)
            with here.computing():
                logits = self._logits(batch, edited, here, recompute=recompute)
            check()
            yield logits

    def _check(self, batch: EmbeddedBatch) -> None:
        """Refuse embeddings that the model cannot read.

        Raises:
            InputError: the embeddings do not have the model's width.
            CapabilityError: the model reads more than embeddings, in general or of this prompt and target.
        """
        width = self.embeddings(batch.target[:1], target=True).shape[-1]
        if batch.prompts.shape[-1] != width:
            raise InputError(f"The embeddings are {batch.prompts.shape[-1]} wide, and those of this model {width}.")
        if not self._checked:
            with torch.inference_mode(False), torch.enable_grad():
                self._check_model()
            self._checked = True
        if batch.ids and (found := self._uneven.intersection((*batch.ids, *batch.target[:-1]))):
            raise CapabilityError(
                f"The prompt or target contains a padding token (id {listing(map(str, sorted(found)))}), and this "
                "model counts positions by what is not padding, which embeddings do not show. Methods that read "
                "embeddings, such as gradient methods and value zeroing, would explain another prediction. Leave the "
                "token out, or use a perturbation method."
            )

    def _reads_alike(self, prompt: tuple[int, ...], after: tuple[int, ...] = ()) -> bool:
        """True if token ids and their embeddings give the same logits."""
        with torch.no_grad():
            by_id = upcast(self._last(None, prompt, after))
            found = upcast(self._last(self.embeddings(prompt)[None], prompt, after))
            return torch.allclose(by_id, found, rtol=1e-3, atol=1e-3 * float(by_id.abs().max()))

    def _check_model(self) -> None:
        """Refuse a model that reads more than embeddings, or whose gradients are wrong.

        Raises:
            CapabilityError: the model is such a one.
        """
        ids = ordinary_ids(self._model, PROBED)
        point = self.embeddings(ids)[None]

        def compute(points: Float[Tensor, "B P D"]) -> Float[Tensor, "B V"]:
            return upcast(self._last(points.to(point), ids))

        if not self._reads_alike(ids):
            raise CapabilityError(
                "This model reads more of a token than its input embedding, so what is computed from embeddings, such "
                "as gradients, does not belong to its tokens. Use a perturbation method."
            )
        first, second, *rest = ids
        self._uneven = frozenset(
            pad
            for pad in padding_ids(self._model)
            if not self._reads_alike((first, pad, second, *rest), (first, pad, second))
        )
        if not computed_by_torch(self._model) and not gradient_is_right(compute, point, self._model.dtype):
            raise CapabilityError(
                "The gradients of this model differ from finite differences of its scores: an operation of its "
                "quantised weights, or of code that PyTorch does not know, has no gradient. Use a perturbation method, "
                "or load the weights unquantised."
            )

    def _split(self, edits: Edits) -> tuple[Edits, Edited]:
        """Take apart the edits of embedding layers, which are not called where embeddings are given."""
        layers, known = {self._layer(target=False), self._layer(target=True)}, named_modules(self._model)
        own = {known[name]: edit for name, edit in edits.outputs.items() if known.get(name) in layers}
        others = {name: edit for name, edit in edits.outputs.items() if known.get(name) not in own}

        def edited(layer: nn.Module, found: Tensor) -> Tensor:
            return own[layer](layer, None, found) if layer in own else found

        return Edits(others, edits.inputs), edited

    def _following(self, batch: EmbeddedBatch) -> Float[Tensor, "B N D"]:
        """Embeddings of the target tokens that are read."""
        if batch.following is not None:
            return batch.following
        return self.embeddings(batch.target[:-1], target=True).expand(len(batch.prompts), -1, -1)

    def _states(
        self, base: nn.Module, arguments: dict[str, Any], here: Here, *, recompute: bool
    ) -> Float[Tensor, "B L D"]:
        """Last hidden states; layer by layer in backward passes if asked for, and if that gives the same states."""
        again = recomputing(base, here) if recompute and self._recomputes.get(base, True) else None
        if again is None:
            states: Tensor = base(**arguments)[0]
            return states
        states = again(**arguments)[0]
        if base not in self._recomputes:
            with torch.no_grad():
                same = self._recomputes[base] = torch.equal(base(**arguments)[0], states)
            return states if same else self._states(base, arguments, here, recompute=recompute)
        return states

    def _logits_in_fp32(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits as ``all_logits`` computes them, in one product.

        With a backward pass, writing slices in place took 1.5 to 1.8 times as long in fp32.
        """
        head = Head.of(self._model)
        bias = None if head.bias is None else upcast(head.bias.detach())
        rows = upcast(states.to(head.weight.dtype)).flatten(0, 1)
        enough = nn.functional.pad(rows, (0, 0, 0, max(0, LEAST_ROWS - len(rows))))
        logits = nn.functional.linear(enough, upcast(head.weight.detach()), bias)[: len(rows)]
        return head.capped(logits.reshape(*states.shape[:2], -1))
