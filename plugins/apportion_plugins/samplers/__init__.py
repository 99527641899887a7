"""Samplers: how coalitions are drawn for regression methods."""

from __future__ import annotations

from apportion.hookspecs import hookimpl
from apportion.registry import Register


@hookimpl
def apportion_register_samplers(register: Register) -> None:
    """Register the samplers of this package."""
    register(
        "permutation",
        "apportion_plugins.samplers.permutation:PermutationSampler",
        summary="coalitions along random orders and their reverses",
    )
