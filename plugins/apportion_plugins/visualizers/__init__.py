"""Visualizers, which render views of a result."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_visualizers(register: Register) -> None:
    """Register the visualizers of this package."""
    home = "apportion_plugins.visualizers"
    register("heatmap", f"{home}.heatmap:Heatmap", summary="features × target tokens, a matplotlib figure")
    register("bar", f"{home}.bar:Bar", summary="bars with 95 % intervals for the whole target, a matplotlib figure")
    register("terminal", f"{home}.terminal:Terminal", summary="coloured prompt and a table, a rich renderable")
    register("html", f"{home}.html:Html", summary="coloured prompt and tables, a self-contained HTML document")
    register("matrix", f"{home}.matrix:Matrix", summary="interactions, features × features, a matplotlib figure")
    register("network", f"{home}.network:Network", summary="interactions drawn over the prompt, a matplotlib figure")
    register("image", f"{home}.image:Image", summary="heat map over the pictures of the prompt, a matplotlib figure")
    register("layers", f"{home}.layers:Layers", summary="layers × features for each module, a matplotlib figure")
    register("tree", f"{home}.tree:Tree", summary="tree of the groups scored by a drill-down, a matplotlib figure")
