"""Captum's perturbation methods, by those of apportion."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.captum.attribution import Attribution
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
    from apportion.captum.scoring import Scorer
    from apportion.protocols.methods import Method

__all__ = ["FeatureAblation", "KernelShap", "Lime", "PerturbationAttribution", "ShapleyValueSampling", "ShapleyValues"]


@dataclass(frozen=True)
class Call:
    """One call of ``attribute``.

    Attributes:
        scorer: the wrapper's.
        question: the input and the target.
        perturbations: the tensors of coalitions.
        show_progress: show a progress bar.
    """

    scorer: Scorer
    question: Question
    perturbations: Perturbations
    show_progress: bool

    def values(self, method: str | Method, **options: Any) -> Float[Tensor, "F K"]:
        """Scores of features by a method of apportion, or one by its name."""
        chosen = named_method(method) if isinstance(method, str) else method
        return self.scorer.estimate(
            self.question, self.perturbations, chosen, options, show_progress=self.show_progress
        )

    def scores(self, method: str, **options: Any) -> Float[Tensor, "K E"]:
        """Scores of elements."""
        return self.perturbations.by_element(self.values(method, **options))


class PerturbationAttribution(Attribution):
    """A method that scores perturbed inputs; it is wrapped by ``LLMAttribution``.

    Args:
        forward_func: the language model.
    """

    random = False
    """True for methods that draw coalitions, so that trials differ."""

    def _called(
        self,
        inputs: Tensor,
        baselines: object,
        target: object,
        arguments: Any,
        feature_mask: Tensor | None,
        perturbations_per_eval: object,
        show_progress: bool,
        *,
        from_zero: bool = False,
    ) -> Call:
        """The arguments of ``attribute``, checked.

        Raises:
            AssertionError: the method is not wrapped, or an argument is not allowed.
        """
        require(target is None, "target is for classifiers; give the text to LLMAttribution")
        positive("perturbations_per_eval", perturbations_per_eval)
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
        own = len(arguments) == 3 and isinstance(arguments[2], Question)
        question = arguments[2] if own else Question(*arguments)
        perturbations = Perturbations(inputs, baselines, feature_mask, from_zero=from_zero)
        return Call(owner.scorer, question, perturbations, show_progress)


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
        call = self._called(
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress
        )
        return call.scores("ablation")


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
        call = self._called(
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress
        )
        return call.scores("permutation", antithetic=False, n_permutations=positive("n_samples", n_samples))[None]


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
        call = self._called(
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress
        )
        return call.scores("shapley")[None]


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
        if feature_mask is not None and feature_mask.numel() and int(feature_mask.min()) > 0:
            warnings.warn("Minimum element in feature mask is not 0, shifting indices to start at 0.", stacklevel=2)
        call = self._called(
            inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress,
            from_zero=True,
        )  # fmt: skip
        coefficients = self._coefficients(call, n_samples)
        return (call.perturbations.by_element(coefficients) if return_input_shape else coefficients.T).float()

    def _coefficients(self, call: Call, n_samples: int) -> Float[Tensor, "F 1"]:
        given = (self.interpretable_model, self.similarity_func, self.perturb_func)
        # The kernel compares elements; with groups or baselines, these are not features that are there or not.
        if given == (None, None, None) and call.perturbations.binary:
            return self._drawn("captum_lime", call, n_samples)
        samples = perturbed_samples(self.perturb_func, call.perturbations, n_samples)
        weights = torch.tensor([kernel_of(self.similarity_func)(*one) for one in samples.compared()])
        method = FixedCoalitions(samples.rows.bool())
        call.values(method)
        return trained(self.interpretable_model, samples.rows, method.values[:, 0], weights)[:, None]

    def _drawn(self, name: str, call: Call, n_samples: int) -> Float[Tensor, "F 1"]:
        values = call.values(name, n_samples=n_samples)
        draw_as_training(call.perturbations.count)
        return values[:, :1]


class KernelShap(Lime):
    """Shapley values from a regression on randomly drawn coalitions.

    Args:
        forward_func: the language model.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        super().__init__(forward_func)

    def _coefficients(self, call: Call, n_samples: int) -> Float[Tensor, "F 1"]:
        return self._drawn("captum_kernel_shap", call, n_samples)
