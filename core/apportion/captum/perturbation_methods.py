"""Captum's perturbation methods, by those of apportion."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.captum.perturbations import Perturbations
from apportion.captum.refusals import RefusedError, positive, require
from apportion.captum.scoring import Question, named_method
from apportion.captum.surrogate import (
    FixedCoalitions,
    Kernel,
    Surrogate,
    draw_as_training,
    kernel_of,
    perturbed_samples,
    trained,
)

if TYPE_CHECKING:
    from apportion.captum.llm_attribution import LLMAttribution

__all__ = ["FeatureAblation", "KernelShap", "Lime", "PerturbationAttribution", "ShapleyValueSampling", "ShapleyValues"]

MANY_FEATURES = 10
"""From so many features on, Captum warns of exact Shapley values."""


class PerturbationAttribution:
    """A method that scores perturbed inputs; it is wrapped by ``LLMAttribution``.

    Args:
        forward_func: the language model.
    """

    random = False
    """True for methods that draw coalitions, so that trials differ."""

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self.forward_func = forward_func

    def attribute_future(self, *args: Any, **kwargs: Any) -> Any:
        """Not implemented.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def has_convergence_delta(self) -> bool:
        """Return ``False``: these methods do not integrate."""
        return False

    @classmethod
    def get_name(cls) -> str:
        """Return the name in words, such as ``"Feature Ablation"``."""
        return "".join(f" {letter}" if letter.isupper() else letter for letter in cls.__name__).strip()

    def _asked(self, arguments: Any) -> tuple[LLMAttribution, Question]:
        """The wrapper, and its question.

        Raises:
            AssertionError: the method is not wrapped.
        """
        owner: Any = getattr(self.forward_func, "__self__", None)
        if not hasattr(owner, "scorer"):
            raise RefusedError(
                f"This {type(self).__name__} explains language models: wrap it as LLMAttribution(method, tokenizer), "
                "and call attribute of that. For models of tensors, use the class of the same name in captum.attr."
            )
        require(
            isinstance(arguments, tuple) and len(arguments) >= 2,
            f"additional_forward_args must hold the input and the target's tokens, not {arguments!r:.80}",
        )
        if len(arguments) == 3 and isinstance(arguments[2], Question):
            return owner, arguments[2]
        return owner, Question(*arguments)


def check_common(target: object, perturbations_per_eval: object) -> None:
    """Refuse arguments that have no meaning here.

    Raises:
        AssertionError: ``target`` is given, or ``perturbations_per_eval`` is not a whole number from 1.
    """
    require(target is None, f"target={target!r:.40} indexes outputs of a classifier; give the text to LLMAttribution")
    positive("perturbations_per_eval", perturbations_per_eval)


class FeatureAblation(PerturbationAttribution):
    """Leave-one-out: the score that is lost without each feature."""

    def attribute(
        self,
        inputs: Tensor,
        baselines: object = None,
        target: object = None,
        additional_forward_args: object = None,
        feature_mask: Tensor | None = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Float[Tensor, "K E"]:
        """Score the elements of a tensor for each output; ``LLMAttribution`` calls this.

        Args:
            inputs: tensor of an interpretable input, ``[1, E]``.
            baselines: what absent elements are; 0 by default.
            target: must be ``None``.
            additional_forward_args: the interpretable input, the target's tokens, and the rest of ``_forward_func``.
            feature_mask: a number for each element; those with the same number are perturbed together.
            perturbations_per_eval: has no effect, because as many inputs are batched as memory allows.
            show_progress: show a progress bar.
            **kwargs: no other arguments are allowed.

        Raises:
            AssertionError: an argument is not allowed.
        """
        require(not kwargs, f"FeatureAblation has no such arguments: {', '.join(kwargs)}")
        check_common(target, perturbations_per_eval)
        owner, question = self._asked(additional_forward_args)
        found = Perturbations(inputs, baselines, feature_mask)
        method = named_method("ablation")
        return found.by_element(owner.scorer.estimate(question, found, method, {}, show_progress=show_progress))


class ShapleyValueSampling(PerturbationAttribution):
    """Shapley values from random orders of the features."""

    random = True

    def attribute(
        self,
        inputs: Tensor,
        baselines: object = None,
        target: object = None,
        additional_forward_args: object = None,
        feature_mask: Tensor | None = None,
        n_samples: int = 25,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Float[Tensor, "1 K E"]:
        """Score the elements of a tensor for each output; as in ``FeatureAblation``.

        Args:
            inputs: tensor of an interpretable input.
            baselines: what absent elements are.
            target: must be ``None``.
            additional_forward_args: the interpretable input, and so on.
            feature_mask: a number for each element.
            n_samples: number of orders, drawn from PyTorch's generator.
            perturbations_per_eval: has no effect.
            show_progress: show a progress bar.

        Raises:
            AssertionError: an argument is not allowed.
        """
        options = {"antithetic": False, "n_permutations": positive("n_samples", n_samples)}
        arguments = (inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval)
        return self._shapley("permutation", options, *arguments, show_progress=show_progress)

    def _shapley(
        self,
        name: str,
        options: Mapping[str, Any],
        inputs: Tensor,
        baselines: object,
        target: object,
        additional_forward_args: object,
        feature_mask: Tensor | None,
        perturbations_per_eval: int,
        *,
        show_progress: bool,
    ) -> Float[Tensor, "1 K E"]:
        check_common(target, perturbations_per_eval)
        owner, question = self._asked(additional_forward_args)
        found = Perturbations(inputs, baselines, feature_mask)
        values = owner.scorer.estimate(question, found, named_method(name), options, show_progress=show_progress)
        return found.by_element(values)[None]


class ShapleyValues(ShapleyValueSampling):
    """Exact Shapley values, from 2^F evaluations where Captum makes F · F! of them."""

    random = False

    def attribute(  # type: ignore[override]
        self,
        inputs: Tensor,
        baselines: object = None,
        target: object = None,
        additional_forward_args: object = None,
        feature_mask: Tensor | None = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Float[Tensor, "1 K E"]:
        """Score the elements of a tensor for each output; as in ``FeatureAblation``.

        Args:
            inputs: tensor of an interpretable input.
            baselines: what absent elements are.
            target: must be ``None``.
            additional_forward_args: the interpretable input, and so on.
            feature_mask: a number for each element.
            perturbations_per_eval: has no effect.
            show_progress: show a progress bar.

        Raises:
            AssertionError: an argument is not allowed.
            BudgetError: there are more than 20 features.
        """
        arguments = (inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval)
        return self._shapley("shapley", {}, *arguments, show_progress=show_progress)


class Lime(PerturbationAttribution):
    """Coefficients of a local linear model.

    Args:
        forward_func: the language model.
        interpretable_model: a model with ``fit(loader)`` and ``representation()``, such as ``SkLearnRidge()``; ``None``
            for ``SkLearnLasso(alpha=0.01)``.
        similarity_func: weighs a sample: ``(original, perturbed, interpretable, **kwargs) -> float``; ``None`` for
            ``get_exp_kernel_similarity_function()``.
        perturb_func: draws a sample ``[1, F]`` of zeros and ones, ``(original, **kwargs)``, or is a generator function
            of them; ``None`` to draw each feature with probability ½.
    """

    random = True

    def __init__(
        self,
        forward_func: Callable[..., Any],
        interpretable_model: Surrogate | None = None,
        similarity_func: Kernel | None = None,
        perturb_func: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(forward_func)
        self.interpretable_model, self.similarity_func = interpretable_model, similarity_func
        self.perturb_func = perturb_func

    def attribute(
        self,
        inputs: Tensor,
        baselines: object = None,
        target: object = None,
        additional_forward_args: object = None,
        feature_mask: Tensor | None = None,
        n_samples: int = 25,
        perturbations_per_eval: int = 1,
        return_input_shape: bool = True,
        show_progress: bool = False,
    ) -> Tensor:
        """Score the elements of a tensor for the whole target; as in ``FeatureAblation``.

        Args:
            inputs: tensor of an interpretable input, ``[1, E]``.
            baselines: what absent elements are.
            target: must be ``None``.
            additional_forward_args: the interpretable input, and so on.
            feature_mask: a number for each element.
            n_samples: number of samples, drawn from PyTorch's generator.
            perturbations_per_eval: has no effect.
            return_input_shape: return a score for each element, ``[1, E]``; else those of the features, ``[1, F]``.
            show_progress: show a progress bar.

        Raises:
            AssertionError: an argument is not allowed.
        """
        positive("n_samples", n_samples)
        check_common(target, perturbations_per_eval)
        owner, question = self._asked(additional_forward_args)
        if feature_mask is not None and feature_mask.numel() and int(feature_mask.min()) > 0:
            warnings.warn("Minimum element in feature mask is not 0, shifting indices to start at 0.", stacklevel=2)
        found = Perturbations(inputs, baselines, feature_mask, from_zero=True)
        coefficients = self._coefficients(owner, question, found, n_samples, show_progress=show_progress)
        return (found.by_element(coefficients) if return_input_shape else coefficients.T).float()

    def _coefficients(
        self, owner: LLMAttribution, question: Question, found: Perturbations, n_samples: int, *, show_progress: bool
    ) -> Float[Tensor, "F 1"]:
        if self.interpretable_model is None and self.similarity_func is None and self.perturb_func is None:
            return self._by_method("captum_lime", owner, question, found, n_samples, show_progress=show_progress)
        samples = perturbed_samples(self.perturb_func, found, n_samples)
        weights = torch.tensor([kernel_of(self.similarity_func)(*one) for one in samples.compared()])
        method = FixedCoalitions(samples.rows.bool())
        owner.scorer.estimate(question, found, method, {}, show_progress=show_progress)
        return trained(self.interpretable_model, samples.rows, method.values[:, 0], weights)[:, None]

    def _by_method(
        self,
        name: str,
        owner: LLMAttribution,
        question: Question,
        found: Perturbations,
        n_samples: int,
        *,
        show_progress: bool,
    ) -> Float[Tensor, "F 1"]:
        options = {"n_samples": n_samples}
        values = owner.scorer.estimate(question, found, named_method(name), options, show_progress=show_progress)
        draw_as_training(found.count)
        return values[:, :1]


class KernelShap(Lime):
    """Shapley values from a regression on randomly drawn coalitions.

    Args:
        forward_func: the language model.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        super().__init__(forward_func)

    def _coefficients(
        self, owner: LLMAttribution, question: Question, found: Perturbations, n_samples: int, *, show_progress: bool
    ) -> Float[Tensor, "F 1"]:
        return self._by_method("captum_kernel_shap", owner, question, found, n_samples, show_progress=show_progress)
