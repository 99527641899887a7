"""Faithfulness metrics."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_metrics(register: Register) -> None:
    """Register the metrics of this package."""
    home = "apportion_plugins.metrics"
    register("deletion", f"{home}.curves:Deletion", summary="area under the score, removing the highest first")
    register("insertion", f"{home}.curves:Insertion", summary="area under the score, adding the highest first")
    register("area_between", f"{home}.curves:AreaBetween", summary="area between the insertion and deletion curves")
    register("aopc", f"{home}.aopc:Aopc", summary="mean loss of score without the 1, 2, … highest features")
    register(
        "comprehensiveness",
        f"{home}.eraser:Comprehensiveness",
        summary="mean loss of score without the top 1 … 50 %",
    )
    register("sufficiency", f"{home}.eraser:Sufficiency", summary="mean loss of score with only the top 1 … 50 %")
    register("top_k_drop", f"{home}.top_k_drop:TopKDrop", summary="loss of score without the k highest features")
    register("lds", f"{home}.lds:LinearDatamodelingScore", summary="rank correlation of sums of values with scores")
    register("infidelity", f"{home}.infidelity:Infidelity", summary="squared error of losses predicted from the values")
    register(
        "sensitivity_n", f"{home}.sensitivity_n:SensitivityN", summary="correlation of removed values with lost score"
    )
