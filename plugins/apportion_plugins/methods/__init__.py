"""Attribution methods."""

from __future__ import annotations

from apportion.hookspecs import hookimpl
from apportion.registry import Register


@hookimpl
def apportion_register_methods(register: Register) -> None:
    """Register the methods of this package."""
    home = "apportion_plugins.methods"
    register("ablation", f"{home}.ablation:Ablation", summary="leave one feature out; F + 1 evaluations")
    register("shapley", f"{home}.shapley:ExactShapley", summary="exact Shapley values; 2^F evaluations")
    register(
        "permutation",
        f"{home}.permutation:PermutationShapley",
        summary="Shapley values from random orders, with standard errors",
    )
    register(
        "kernel_shap", f"{home}.kernel_shap:KernelShap", summary="Shapley values by regression, with standard errors"
    )
    register("banzhaf", f"{home}.banzhaf:Banzhaf", summary="Banzhaf values by regression")
    register("occlusion", f"{home}.occlusion:Occlusion", summary="leave windows of neighbouring features out")
    register("lime", f"{home}.lime:Lime", summary="a sparse local linear model; Captum's text defaults")
    register(
        "context_cite", f"{home}.context_cite:ContextCite", summary="a sparse linear model of the response's logit"
    )
    register(
        "captum_kernel_shap",
        f"{home}.captum:CaptumKernelShap",
        summary="the numbers of Captum's KernelShap; kernel_shap is more accurate",
    )
    register("captum_lime", f"{home}.captum:CaptumLime", summary="the numbers of Captum's Lime")
