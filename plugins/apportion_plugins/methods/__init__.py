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
    register(
        "gp_shap",
        f"{home}.gp_shap:GaussianProcessShap",
        summary="Shapley values of a Gaussian process; the fewest evaluations, with standard errors",
    )
    register("banzhaf", f"{home}.banzhaf:Banzhaf", summary="Banzhaf values by regression")
    register("occlusion", f"{home}.occlusion:Occlusion", summary="leave windows of neighbouring features out")
    register("lime", f"{home}.lime:Lime", summary="a sparse local linear model; Captum's text defaults")
