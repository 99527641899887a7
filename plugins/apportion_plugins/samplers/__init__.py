"""Samplers, which draw coalitions for regression methods."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_samplers(register: Register) -> None:
    """Register the samplers of this package."""
    home = "apportion_plugins.samplers"
    register("bernoulli", f"{home}.bernoulli:BernoulliSampler", summary="each feature with probability one half")
    register("kernel", f"{home}.kernel:KernelSampler", summary="pairs drawn from the Shapley kernel, with replacement")
    register(
        "informative",
        f"{home}.informative:InformativeSampler",
        summary="pairs chosen to be informative about Shapley values",
    )
    register("leverage", f"{home}.leverage:LeverageSampler", summary="distinct pairs, all sizes equally often")
    register(
        "permutation",
        f"{home}.permutation:PermutationSampler",
        summary="coalitions along random orders and their reverses",
    )
