"""Faithfulness metrics."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_metrics(register: Register) -> None:
    """Register the metrics of this package."""
    home = "apportion_plugins.metrics"
    register("deletion", f"{home}.curves:Deletion", summary="area under the curve of features removed, highest first")
    register("insertion", f"{home}.curves:Insertion", summary="area under the curve of features added, highest first")
    register("area_between", f"{home}.curves:AreaBetween", summary="between removing the lowest and the highest first")
    register("aopc", f"{home}.aopc:Aopc", summary="mean loss without the 1, 2, … highest features")
    register(
        "comprehensiveness",
        f"{home}.eraser:Comprehensiveness",
        summary="mean loss without the top 1 … 50 %",
    )
    register("sufficiency", f"{home}.eraser:Sufficiency", summary="mean loss with the top 1 … 50 % alone")
    register("top_k_drop", f"{home}.top_k_drop:TopKDrop", summary="loss without the k highest features")
    register("lds", f"{home}.lds:LinearDatamodelingScore", summary="rank correlation of sums of values with scores")
    register("infidelity", f"{home}.infidelity:Infidelity", summary="squared error of losses predicted by the values")
    register("sensitivity_n", f"{home}.sensitivity_n:SensitivityN", summary="correlation of removed values with losses")
