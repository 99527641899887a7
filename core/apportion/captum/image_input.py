"""An image as an interpretable input, whose features are segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.captum.inputs import InterpretableInput
from apportion.captum.refusals import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["ImageMaskInput"]


def _unchanged(image: Image) -> Any:
    return image


class ImageMaskInput(InterpretableInput):
    """An image whose features are segments, which are painted over when absent.

    Args:
        image: the image.
        mask: the segment of each pixel, ``Int[H, W]``; ``None`` for one segment.
        mask_list: a mask ``Bool[H, W]`` for each feature; they may overlap. ``mask`` is then ignored.
        baseline: colour of absent pixels, red, green and blue.
        processor_fn: makes the model's arguments of an image, such as a call of a processor with a prompt.

    Raises:
        AssertionError: a mask does not have the image's shape.
    """

    def __init__(
        self,
        image: Image,
        mask: Tensor | None = None,
        mask_list: list[Tensor] | None = None,
        baseline: tuple[int, int, int] = (255, 255, 255),
        processor_fn: Callable[[Image], Any] = _unchanged,
    ) -> None:
        self.image, self.baseline, self.processor_fn = image, baseline, processor_fn
        shape = (image.height, image.width)
        if mask_list is not None:
            for number, one in enumerate(mask_list):
                require(
                    tuple(one.shape) == shape,
                    f"mask_list[{number}] shape {tuple(one.shape)} must match image shape {shape}",
                )
            numbers: list[int] = list(range(len(mask_list)))
            mask = torch.empty(0)
        else:
            mask = torch.zeros(shape, dtype=torch.int32) if mask is None else mask
            require(tuple(mask.shape) == shape, f"mask shape {tuple(mask.shape)} must match image shape {shape}")
            numbers = [int(one) for one in torch.unique(mask).tolist()]
        self.mask, self.mask_list = mask, mask_list or []
        self.n_itp_features = len(numbers)
        self.mask_id_to_idx = {number: index for index, number in enumerate(numbers)}
        self.values = [f"image_feature_{number}" for number in numbers]
        self.original_model_inputs = processor_fn(image)

    def to_tensor(self) -> Tensor:
        """Return ones, ``Float[1, F]``."""
        return torch.ones(1, self.n_itp_features)

    def to_model_input(self, perturbed_tensor: Tensor | None = None) -> Any:
        """Return the model's arguments for the image in which the segments of zeros are painted over."""
        if perturbed_tensor is None:
            return self.original_model_inputs
        from PIL import Image

        return self.processor_fn(Image.fromarray(self.pixels(perturbed_tensor)))

    def pixels(self, perturbed_tensor: Tensor) -> np.ndarray:
        """Return the picture in which the segments of zeros are painted over."""
        pixels = np.array(self.image)
        absent = perturbed_tensor[0].cpu().numpy() == 0
        pixels[self._painted_over(absent)] = self.baseline
        return pixels.astype("uint8")

    def _painted_over(self, absent: Bool[np.ndarray, " F"]) -> Bool[np.ndarray, "H W"]:
        """The pixels of absent segments."""
        if not self.mask_list:
            # A look-up for all pixels at once, and not a comparison for each segment.
            numbers = np.array(list(self.mask_id_to_idx))
            found: Bool[np.ndarray, "H W"] = absent[np.searchsorted(numbers, self.mask.cpu().numpy())]
            return found
        masks = [one.bool().cpu().numpy() for one, gone in zip(self.mask_list, absent, strict=True) if gone]
        return np.logical_or.reduce(masks) if masks else np.zeros((self.image.height, self.image.width), bool)

    def get_mask_list(self) -> list[Tensor]:
        """Return a mask ``Bool[H, W]`` for each feature."""
        return self.mask_list or [self.mask == number for number in self.mask_id_to_idx]

    @property
    def segments(self) -> dict[int, Tensor]:
        """The mask of each feature by its number."""
        return dict(zip(self.mask_id_to_idx, self.get_mask_list(), strict=True))

    def format_pixel_attr(self, itp_attr: Tensor) -> Tensor:
        """Return a score for each pixel ``[..., H, W]``: the sum of those of the segments that it belongs to."""
        masks = torch.stack([one.bool() for one in self.get_mask_list()]).to(itp_attr)
        return torch.einsum("...f,fhw->...hw", itp_attr, masks)

    def plot_mask_overlay(
        self, show: bool = False, border_width: int = 0, show_legends: bool = True
    ) -> tuple[Figure, Axes] | None:
        """Draw the segments over the image.

        Args:
            show: show the figure, and return nothing.
            border_width: width of the borders of segments, in pixels; 0 for none.
            show_legends: write each segment's number at its centre.
        """
        from apportion.captum.plots import draw_segments

        return draw_segments(self.image, self.segments, show=show, border_width=border_width, show_legends=show_legends)
