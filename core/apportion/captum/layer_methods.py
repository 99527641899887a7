"""Captum's gradient methods at layers, by those of apportion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from apportion.captum import hooked
from apportion.captum.attribution import Attribution
from apportion.captum.refusals import RefusedError, positive, require

__all__ = [
    "LayerAttributions",
    "LayerGradientShap",
    "LayerGradientXActivation",
    "LayerIntegratedGradients",
    "LayerMethod",
]


class LayerAttributions(list[Tensor]):
    """Scores of several layers; an index of several dimensions is applied to each, as to one tensor."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return LayerAttributions(one[index] for one in self)
        found = super().__getitem__(index)
        return LayerAttributions(found) if isinstance(index, slice) else found

    def detach(self) -> LayerAttributions:
        """Return the scores without their graph."""
        return LayerAttributions(one.detach() for one in self)

    def sum(self, dim: int) -> LayerAttributions:
        """Return sums along a dimension."""
        return LayerAttributions(one.sum(dim) for one in self)


class LayerMethod(Attribution):
    """A gradient method at one or more modules; it is wrapped by ``LLMGradientAttribution``.

    Args:
        forward_func: the language model.
        layer: a module of the model, or a list of modules.
        device_ids: has no effect.
        multiply_by_inputs: multiply gradients by the activations, or their differences from the baseline's.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Sequence[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        super().__init__(forward_func)
        self.layer, self.device_ids = layer, device_ids
        self._multiply_by_inputs = multiply_by_inputs
        require(bool(self.layers) and all(isinstance(one, nn.Module) for one in self.layers), "layer must be a module")

    @property
    def layers(self) -> list[nn.Module]:
        """The modules as a list."""
        return [self.layer] if isinstance(self.layer, nn.Module) else list(self.layer)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True if gradients are multiplied by activations."""
        return self._multiply_by_inputs

    def _function(self, inputs: Tensor, baselines: object, target: object, arguments: object) -> hooked.TokenFunction:
        """The function that ``attribute`` differentiates.

        Raises:
            AssertionError: the method is not wrapped, or an argument is not allowed.
        """
        require(target is None, "target is for classifiers; give the text to LLMGradientAttribution")
        if not hasattr(self.forward_func, "wrapper"):
            raise RefusedError(
                f"This {type(self).__name__} explains language models: wrap it as LLMGradientAttribution(method, "
                "tokenizer) and call attribute of that. For other models, use the class of that name in captum.attr."
            )
        wrapped: hooked.TokenFunctions = self.forward_func  # type: ignore[assignment]
        return wrapped.function_of(inputs, baselines, arguments)

    def _shaped(self, found: list[Tensor]) -> Tensor | LayerAttributions:
        return found[0] if isinstance(self.layer, nn.Module) else LayerAttributions(found)


class LayerIntegratedGradients(LayerMethod):
    """Integrated gradients of what modules return, from the baseline's activations to the input's."""

    def has_convergence_delta(self) -> bool:
        """Return ``True``."""
        return True

    def attribute(
        self,
        inputs: Tensor,
        baselines: object = None,
        target: object = None,
        additional_forward_args: object = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Score the activations for one target token; ``LLMGradientAttribution`` calls this.

        Args:
            inputs: tensor of an interpretable input, ``[1, F]``.
            baselines: the same of the baseline: a number or a tensor; 0, all tokens absent, by default.
            target: must be ``None``.
            additional_forward_args: the interpretable input, the target's tokens, and the number of one.
            n_steps: number of points on the path.
            method: ``"gausslegendre"`` or a Riemann sum: ``"riemann_left"``, ``"riemann_right"``,
                ``"riemann_middle"`` or ``"riemann_trapezoid"``.
            internal_batch_size: most points in a batch.
            return_convergence_delta: also return the sum of the scores minus the change of the output, ``[1]``.
            attribute_to_layer_input: score what modules read instead.
            grad_kwargs: arguments of ``torch.autograd.grad``.

        Returns:
            ``[1, L, D]`` for L tokens of the prompt and the target before the token; for a list of modules, a list.

        Raises:
            AssertionError: an argument is not allowed.
        """
        path = hooked.Path(n_steps, method, internal_batch_size)
        function = self._function(inputs, baselines, target, additional_forward_args)
        found = hooked.integrated(function, self.layers, path, at_input=attribute_to_layer_input, options=grad_kwargs)
        shaped = self._shaped(found.scores(multiplied=self.multiplies_by_inputs))
        return (shaped, found.delta()) if return_convergence_delta else shaped


class LayerGradientXActivation(LayerMethod):
    """Gradients of what modules return, times that.

    Args:
        forward_func: the language model.
        layer: a module of the model, or a list of modules.
        device_ids: has no effect.
        multiply_by_inputs: multiply gradients by the activations.
        memory_efficient: has no effect.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Sequence[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__(forward_func, layer, device_ids, multiply_by_inputs)

    def attribute(
        self,
        inputs: Tensor,
        target: object = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Score the activations for one target token, as ``LayerIntegratedGradients`` does.

        Args:
            inputs: tensor of an interpretable input.
            target: must be ``None``.
            additional_forward_args: the interpretable input, the target's tokens, and the number of one.
            attribute_to_layer_input: score what modules read instead.
            grad_kwargs: arguments of ``torch.autograd.grad``.

        Raises:
            AssertionError: an argument is not allowed.
        """
        function = self._function(inputs, None, target, additional_forward_args)
        found = hooked.slopes(function, self.layers, at_input=attribute_to_layer_input, options=grad_kwargs)
        return self._shaped(found.scores(multiplied=self.multiplies_by_inputs))


class LayerGradientShap(LayerMethod):
    """Expected gradients: of points drawn between the activations of the input and of random baselines.

    Captum's scores the last position of the prompt instead of the target's tokens after the first; this one is right.
    """

    def has_convergence_delta(self) -> bool:
        """Return ``True``."""
        return True

    def attribute(
        self,
        inputs: Tensor,
        baselines: object = None,
        n_samples: int = 5,
        stdevs: float | tuple[float, ...] = 0.0,
        target: object = None,
        additional_forward_args: object = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
    ) -> Any:
        """Score the activations for one target token, as ``LayerIntegratedGradients`` does.

        Args:
            inputs: tensor of an interpretable input.
            baselines: tensors of baselines, one in each row, from which each sample draws; or a function that returns
                them; ``None`` for all tokens absent.
            n_samples: number of points, drawn from PyTorch's generator.
            stdevs: must be 0: an interpretable input is present or absent.
            target: must be ``None``.
            additional_forward_args: the interpretable input, the target's tokens, and the number of one.
            return_convergence_delta: also return the sum of each sample's scores minus the change of the output.
            attribute_to_layer_input: score what modules read instead.

        Raises:
            AssertionError: an argument is not allowed.
        """
        positive("n_samples", n_samples)
        require(
            not any(stdevs if isinstance(stdevs, tuple) else (stdevs,)),
            f"stdevs={stdevs!r:.40} must be 0: noise makes every token of an interpretable input absent",
        )
        rows = baselines() if callable(baselines) else baselines
        require(
            rows is None or isinstance(rows, int | float | Tensor),
            f"baselines must be a tensor, a function or None, not {rows!r:.60}",
        )
        function = self._function(inputs, rows, target, additional_forward_args)
        shares = torch.rand(n_samples)
        chosen = torch.randint(len(function.absent), (n_samples,))
        found = hooked.expected(function, self.layers, shares, chosen, at_input=attribute_to_layer_input)
        shaped = self._shaped(found.scores(multiplied=self.multiplies_by_inputs))
        return (shaped, found.delta()) if return_convergence_delta else shaped
