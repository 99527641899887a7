"""Scores at layers for all target tokens from one forward pass per point, by methods of apportion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from apportion.captum.hooked import Path
from apportion.captum.inputs import TextTokenInput
from apportion.captum.layer_methods import LayerGradientShap, LayerGradientXActivation, LayerIntegratedGradients
from apportion.captum.perturbations import Perturbations
from apportion.captum.prompt import PerturbedPrompt
from apportion.captum.refusals import positive
from apportion.errors import CapabilityError
from apportion.protocols.row import ModelInput

if TYPE_CHECKING:
    from apportion.captum.wrappers import GradientWrapper

__all__ = ["TokenScores", "token_scores"]


@dataclass(frozen=True)
class TokenScores:
    """Scores of tokens.

    Attributes:
        scores: for each module, ``Float[T, F]``.
        deltas: sum of scores minus the change of the output, for each target token; ``None`` if they are not asked for.
    """

    scores: list[Float[Tensor, "T F"]]
    deltas: Float[Tensor, " T"] | None = None


NAMES: Mapping[type, tuple[str, Mapping[str, str]]] = {
    LayerIntegratedGradients: ("layer_integrated_gradients", {"n_steps": "steps", "method": "rule"}),
    LayerGradientXActivation: ("layer_gradient_x_activation", {}),
    LayerGradientShap: ("layer_gradient_shap", {"n_samples": "n_samples"}),
}
"""Names of methods, and of their options by Captum's."""
COMMON = ("internal_batch_size", "return_convergence_delta", "attribute_to_layer_input", "baselines", "grad_kwargs")


def token_scores(
    wrapper: GradientWrapper, inp: TextTokenInput, target: Int[Tensor, " T"], options: Mapping[str, Any]
) -> TokenScores | None:
    """Scores of the tokens of an input; ``None`` if the model, the method or an option needs the slow way."""
    method = wrapper.attr_method
    names = _names(wrapper.model, method.layers)
    _check(method, options)
    plain = type(method) in NAMES and type(inp) is TextTokenInput and wrapper.scores_at_once()
    if not plain or not method.multiplies_by_inputs or names is None:
        return None
    name, known = NAMES[type(method)]
    allowed = {*known, *COMMON}
    if not options.keys() <= allowed or not _absent(options.get("baselines")) or options.get("grad_kwargs"):
        return None
    deltas = bool(options.get("return_convergence_delta"))
    if deltas and type(method) is not LayerIntegratedGradients:
        return None
    chosen: dict[str, Any] = {known[key]: value for key, value in options.items() if key in known}
    if type(method) is not LayerGradientXActivation:
        chosen |= {"baseline": inp.baselines}
    if type(method) is LayerGradientShap:
        chosen = {"n_samples": 5} | chosen
    explainer = wrapper.explainers.get()
    if explainer is None:
        return None
    try:
        result = explainer.attribute(
            _prompt(inp),
            target.tolist(),
            method=name,
            layers=names,
            at="input" if options.get("attribute_to_layer_input") else "output",
            seed=int(torch.randint(2**31, ())) if type(method) is LayerGradientShap else 0,
            **chosen,
        )
    except CapabilityError:
        return None
    parameter = next(wrapper.model.parameters())
    like = parameter if parameter.is_floating_point() else torch.empty(0, device=wrapper.device)
    scores = [torch.tensor(part).to(like) for part in result.extras["module_token_values"]]
    if len(scores) > 1 and not all(bool(part.any()) for part in scores):
        # Another layer of the list may cut one off, which the slow way refuses.
        return None
    found = torch.tensor(result.extras["convergence_delta"])[1:].to(like) if deltas else None
    return TokenScores(scores, found)


def _check(method: Any, options: Mapping[str, Any]) -> None:
    """Refuse options before the model runs.

    Raises:
        RefusedError: a number is below 1, or the rule is unknown.
    """
    if isinstance(method, LayerIntegratedGradients):
        rule, at_once = options.get("method", "gausslegendre"), options.get("internal_batch_size")
        Path(options.get("n_steps", 50), rule, at_once)
    if isinstance(method, LayerGradientShap):
        positive("n_samples", options.get("n_samples", 5))


def _prompt(inp: TextTokenInput) -> PerturbedPrompt:
    ids = inp.inp_tensor[0].tolist()
    scored = [True] * len(ids) if inp.itp_mask is None else inp.itp_mask[0].tolist()
    numbers = iter(range(len(ids)))
    return PerturbedPrompt(
        Perturbations(inp.to_tensor()),
        inp.values,
        lambda tensor: ModelInput(tuple(inp.to_model_input(tensor)[0].tolist())),
        tokens=[next(numbers) if one else None for one in scored],
        baseline=inp.baselines,
    )


def _names(model: nn.Module, layers: list[nn.Module]) -> list[str] | None:
    """Names of modules; ``None`` if one of them is not in the model, or is the model itself."""
    known = {id(module): name for name, module in model.named_modules()}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    # Logits are computed from the head's weights, without a call.
    found = [None if layer is head else known.get(id(layer)) for layer in layers]
    return [str(name) for name in found] if all(found) and len(set(found)) == len(found) else None


def _absent(baselines: object) -> bool:
    """True for the baseline in which all tokens are absent."""
    if isinstance(baselines, int | float | Tensor):
        return not bool(torch.as_tensor(baselines).any())
    return baselines is None
