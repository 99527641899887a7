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
