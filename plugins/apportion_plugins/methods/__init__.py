"""Attribution methods."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_methods(register: Register) -> None:
    """Register the methods of this package."""
    for name, factory, summary in (
        ("ablation", "ablation:Ablation", "leave one feature out; F + 1 evaluations"),
        ("shapley", "shapley:ExactShapley", "exact Shapley values; 2^F evaluations"),
        ("permutation", "permutation:PermutationShapley", "Shapley values from random orders, with standard errors"),
        ("kernel_shap", "kernel_shap:KernelShap", "Shapley values by regression, with standard errors"),
        ("gp_shap", "gp_shap:GaussianProcessShap", "Shapley values of a Gaussian process; the fewest evaluations"),
        ("banzhaf", "banzhaf:Banzhaf", "Banzhaf values by regression"),
        ("occlusion", "occlusion:Occlusion", "leave windows of neighbouring features out"),
        ("hierarchical", "hierarchical:Hierarchical", "drill down from paragraphs to words, by score"),
        (
            "interactions",
            "interactions:Interactions",
            "interactions of pairs of features, exact or by regression",
        ),
        ("lime", "lime:Lime", "a sparse local linear model; Captum's text defaults"),
        ("context_cite", "context_cite:ContextCite", "a sparse linear model of the response's logit"),
        ("reagent", "reagent:Reagent", "importance of tokens that plausible others replace; Inseq's parameters"),
        ("captum_kernel_shap", "captum:CaptumKernelShap", "the numbers of Captum's KernelShap; kernel_shap is better"),
        ("captum_lime", "captum:CaptumLime", "the numbers of Captum's Lime"),
    ):
        register(name, f"apportion_plugins.methods.{factory}", summary=summary)
