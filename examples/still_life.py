"""A picture like a photograph, drawn by this project: a red ball and a blue box in front of a wall."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["still_life"]

SIDE = 768


def still_life(seed: int = 0) -> Image.Image:
    """Draw the picture, with light from the left, soft shadows, and the grain of a film.

    Args:
        seed: seed of the grain.
    """
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    picture = (128 + 16 * (0.5 - x) + 10 * (0.5 - y))[..., None] * np.array([1.0, 0.99, 0.97])
    picture[y > 0.86] *= 0.93
    ball, box = _ball(x, y, 0.375, 0.625, 0.098), (abs(x - 0.875) < 0.088) & (abs(y - 0.375) < 0.088)
    shadows = np.clip(_ball(x, y, 0.41, 0.66, 0.105) + 0.9 * ((abs(x - 0.90) < 0.085) & (abs(y - 0.40) < 0.085)), 0, 1)
    soft = np.asarray(Image.fromarray((255 * shadows).astype(np.uint8)).filter(ImageFilter.GaussianBlur(22))) / 255
    picture *= 1 - 0.22 * soft[..., None]
    light = np.clip(1 - ((x - 0.345) ** 2 + (y - 0.59) ** 2) / 0.02, 0, 1)[..., None]
    picture = np.where(ball[..., None] > 0, np.array([196.0, 34, 34]) + light * np.array([46, 40, 38]), picture)
    shade = (1.05 - 0.9 * np.clip(x - 0.787, 0, 0.2))[..., None]
    picture = np.where(box[..., None], np.array([54.0, 74, 220]) * shade, picture)
    smooth = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    grain = np.random.default_rng(seed).normal(0, 5, (SIDE, SIDE, 1))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def _ball(x: np.ndarray, y: np.ndarray, across: float, down: float, radius: float) -> np.ndarray:
    return ((x - across) ** 2 + (y - down) ** 2 <= radius**2).astype(float)
