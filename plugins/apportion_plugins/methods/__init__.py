"""Attribution methods."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_methods(register: Register) -> None:
    """Register the methods of this package."""
    for name, factory, summary in (
        ("ablation", "ablation:Ablation", "leave-one-out: the score that is lost without each feature"),
        ("shapley", "shapley:ExactShapley", "exact Shapley values"),
        ("permutation", "permutation:PermutationShapley", "Shapley values from random orders, with standard errors"),
        ("kernel_shap", "kernel_shap:KernelShap", "Shapley values by regression, with standard errors"),
        ("gp_shap", "gp_shap:GaussianProcessShap", "Shapley values from a Gaussian process; the least error"),
        ("banzhaf", "banzhaf:Banzhaf", "Banzhaf values by regression"),
        ("occlusion", "occlusion:Occlusion", "leave out windows of adjacent features"),
        ("hierarchical", "hierarchical:Hierarchical", "drill down into the groups of features that score highest"),
        (
            "interactions",
            "interactions:Interactions",
            "pairwise interactions of features, exact or by regression",
        ),
        ("lime", "lime:Lime", "a sparse local linear model, with Captum's defaults for text"),
        ("context_cite", "context_cite:ContextCite", "a sparse linear model of the response's log-odds"),
        ("reagent", "reagent:Reagent", "importance from replacing tokens with plausible ones; Inseq's parameters"),
        ("attention", "attention:Attention", "attention weights, by layer and head, or rolled out"),
        ("value_zeroing", "value_zeroing:ValueZeroing", "what each layer loses without a token's value vector"),
        ("saliency", "saliency:Saliency", "norm of the gradient at the prompt's embeddings; one forward pass"),
        ("input_x_gradient", "saliency:InputXGradient", "gradient times embeddings; one forward pass"),
        (
            "integrated_gradients",
            "integrated_gradients:IntegratedGradients",
            "gradients on the path from a baseline to the prompt; 52 forward passes",
        ),
        ("gradient_shap", "gradient_shap:GradientShap", "expected gradients, with standard errors; 50 forward passes"),
        (
            "discretized_integrated_gradients",
            "discretized_integrated_gradients:DiscretizedIntegratedGradients",
            "integrated gradients on a path along other tokens; 30 forward passes",
        ),
        (
            "sequential_integrated_gradients",
            "sequential_integrated_gradients:SequentialIntegratedGradients",
            "integrated gradients of one feature at a time; 20 forward passes per feature",
        ),
        (
            "layer_integrated_gradients",
            "layer_integrated_gradients:LayerIntegratedGradients",
            "integrated gradients at any modules; 53 forward passes",
        ),
        (
            "layer_gradient_x_activation",
            "layer_gradient_x_activation:LayerGradientXActivation",
            "gradient times activation at any modules; one forward pass",
        ),
        (
            "layer_gradient_shap",
            "layer_gradient_shap:LayerGradientShap",
            "integrated gradients at any modules from random points, with standard errors",
        ),
        ("deeplift", "deeplift:DeepLift", "DeepLIFT by the Rescale rule; one forward pass"),
        ("layer_deeplift", "deeplift:LayerDeepLift", "DeepLIFT at any modules; one forward pass"),
        ("captum_kernel_shap", "captum:CaptumKernelShap", "reproduces Captum's KernelShap; prefer kernel_shap"),
        ("captum_lime", "captum:CaptumLime", "reproduces Captum's Lime"),
    ):
        register(name, f"apportion_plugins.methods.{factory}", summary=summary)
