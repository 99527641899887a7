"""Segmenters of pictures, fills of their absent regions, and what both need."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_segmenters(register: Register) -> None:
    """Register the segmenters of this package."""
    here = "apportion_plugins.pictures.segmenters"
    register("grid", f"{here}:Grid", summary="rows and columns of equal cells")
    register("slic", f"{here}:Slic", summary="superpixels: connected regions of similar colour (scikit-image)")
    register("patches", f"{here}:Patches", summary="the patches that the model itself divides the picture into")


@hookimpl
def apportion_register_fills(register: Register) -> None:
    """Register the fills of this package."""
    here = "apportion_plugins.pictures.fills"
    register("mean", f"{here}:Mean", summary="the mean colour of the picture")
    register("local_mean", f"{here}:LocalMean", summary="the mean colour of each connected absent area")
    register("blur", f"{here}:Blur", summary="the picture, blurred")
    register("black", f"{here}:Black", summary="black")
    register("white", f"{here}:White", summary="white")
    register("noise", f"{here}:Noise", summary="random pixels with the mean and the spread of the picture")
    register("inpaint", f"{here}:Inpaint", summary="continued from the pixels around, without what was there (OpenCV)")
