"""Captum's classes for language models, with apportion's speed and numbers: change the import, and nothing else.

Names, arguments, defaults, shapes and errors are those of ``captum.attr`` 0.9. ``docs/how-to/from-captum.md`` lists
what is corrected.
"""

from apportion.captum.baselines import ProductBaselines
from apportion.captum.image_input import ImageMaskInput
from apportion.captum.inputs import InterpretableInput, TextTemplateInput, TextTokenInput
from apportion.captum.layer_methods import LayerGradientShap, LayerGradientXActivation, LayerIntegratedGradients
from apportion.captum.llm_attribution import DEFAULT_GEN_ARGS, BaseLLMAttribution, LLMAttribution
from apportion.captum.llm_gradient import LLMGradientAttribution
from apportion.captum.perturbation_methods import (
    FeatureAblation,
    KernelShap,
    Lime,
    ShapleyValues,
    ShapleyValueSampling,
)
from apportion.captum.provider import RemoteLLMProvider, VLLMProvider
from apportion.captum.remote import RemoteLLMAttribution
from apportion.captum.result import LLMAttributionResult
from apportion.captum.served import ServerProvider
from apportion.captum.surrogate import (
    SkLearnLasso,
    SkLearnLinearModel,
    SkLearnLinearRegression,
    SkLearnRidge,
    get_exp_kernel_similarity_function,
)

# Names of earlier versions, and of the paper (arXiv 2312.05491).
MMImageMaskInput = ImageMaskInput
TextTemplateFeature = TextTemplateInput
TextTokenFeature = TextTokenInput

__all__ = [
    "DEFAULT_GEN_ARGS",
    "BaseLLMAttribution",
    "FeatureAblation",
    "ImageMaskInput",
    "InterpretableInput",
    "KernelShap",
    "LLMAttribution",
    "LLMAttributionResult",
    "LLMGradientAttribution",
    "LayerGradientShap",
    "LayerGradientXActivation",
    "LayerIntegratedGradients",
    "Lime",
    "MMImageMaskInput",
    "ProductBaselines",
    "RemoteLLMAttribution",
    "RemoteLLMProvider",
    "ServerProvider",
    "ShapleyValueSampling",
    "ShapleyValues",
    "SkLearnLasso",
    "SkLearnLinearModel",
    "SkLearnLinearRegression",
    "SkLearnRidge",
    "TextTemplateFeature",
    "TextTemplateInput",
    "TextTokenFeature",
    "TextTokenInput",
    "VLLMProvider",
    "get_exp_kernel_similarity_function",
]
