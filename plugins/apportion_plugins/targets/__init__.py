"""Target functions: what of the model's output is explained."""

from __future__ import annotations

from apportion.hookspecs import hookimpl
from apportion.registry import Register


@hookimpl
def apportion_register_targets(register: Register) -> None:
    """Register the target functions of this package."""
    home = "apportion_plugins.targets.likelihood"
    register("log_prob", f"{home}:LogProb", summary="log-probability of the target, in nats (default)")
    register("prob", f"{home}:Prob", summary="probability of the target, and of each token given those before it")
