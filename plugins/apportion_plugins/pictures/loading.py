"""Pictures as users give them, read into arrays: upright, in RGB, and of a size that was allowed."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from apportion.errors import InputError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LoadedPicture", "load_picture"]

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Modes of pictures with one channel of more than 8 bits, which Pillow would cut off at 255."""
WITH_OPACITY = ("RGBA", "RGBa", "LA", "La", "PA")
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
"""Modes whose colours are multiplied by their opacity, and the modes that they are converted to."""
OVERSHOOT = 1.25
"""Largest value of pictures from 0 to 1 that were made smaller or sharper by a filter."""
ORIENTATION = 0x0112
"""Number of the EXIF tag that says how a picture is turned."""


@dataclass(frozen=True, eq=False)
class LoadedPicture:
    """A picture that was read.

    Attributes:
        name: its name in views.
        pixels: the picture.
        notes: sentences for results.
    """

    name: str
    pixels: UInt8[np.ndarray, "H W 3"]
    notes: tuple[str, ...] = ()


def load_picture(given: object, name: str, max_pixels: int) -> LoadedPicture:
    """Read a picture.

    Args:
        given: a path, the bytes of a file, a PIL image, or an array.
        name: its name, if it has no path.
        max_pixels: pixels of the largest picture that is accepted.

    Raises:
        InputError: it is not a picture, cannot be read, or is too large.
    """
    if isinstance(given, str | Path) or hasattr(given, "__fspath__"):
        return _of_file(Path(str(given)).expanduser(), max_pixels)
    if isinstance(given, bytes | bytearray):
        return _of_opened(lambda: _opened(io.BytesIO(bytes(given))), name, max_pixels)
    if hasattr(given, "getexif") and hasattr(given, "convert"):  # without importing Pillow
        return _of_opened(lambda: given, Path(str(getattr(given, "filename", "") or name)).name, max_pixels)
    return _of_array(given, name, max_pixels)


def _of_file(path: Path, max_pixels: int) -> LoadedPicture:
    if path.is_dir():
        raise InputError(f"{path} is a folder, and not a picture.")
    if not path.is_file():
        raise InputError(f"There is no picture {path}.")
    return _of_opened(lambda: _opened(path), path.name, max_pixels)


def _opened(source: Any) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        # The limit of max_pixels is checked instead, before the picture is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source)


def _of_opened(opening: Any, name: str, max_pixels: int) -> LoadedPicture:
    from PIL import Image, UnidentifiedImageError

    try:
        image = opening()
        _check_size(name, image.width, image.height, max_pixels)
        frames = getattr(image, "n_frames", 1)
        # The user's own object stays at the frame that they chose.
        notes = [f"{name} holds {frames} pictures; number {image.tell() + 1} is read"] if frames > 1 else []
        return LoadedPicture(name, _upright(image, name, notes), tuple(notes))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{_in_words(name)} is too large: {error} Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS and "
            "max_pixels=."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture in a format that Pillow reads.") from error
    except Exception as error:  # damaged files fail in many ways
        raise InputError(f"{_in_words(name)} cannot be read: {type(error).__name__}: {error}.") from error


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{_in_words(name)} has no pixels: it is {width} × {height}.")
    if width * height > max_pixels:
        raise InputError(
            f"{_in_words(name)} has {width} × {height} = {width * height:,} pixels; at most {max_pixels:,} are "
            "accepted. Make it smaller, since models read it smaller anyway, or raise max_pixels=."
        )


def _upright(image: Image, name: str, notes: list[str]) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(ORIENTATION, 1) != 1:
        notes.append(f"{name} is turned upright, as its EXIF orientation says")
    if upright.mode in DEEP:
        levels, scale = _eight_bits(np.asarray(upright), name)
        clear = upright.info.get("transparency")
        if isinstance(clear, int) and (np.asarray(upright) == clear).any():
            levels[np.asarray(upright) == clear] = 255
            notes.append(f"transparent pixels of {name} are shown on white")
        found = np.repeat(levels[..., None], 3, axis=2)
        notes.append(f"the grey levels of {name} ({upright.mode}), {scale}, are read with 8 bits")
    elif upright.mode in WITH_OPACITY or "transparency" in upright.info:
        layered = upright.convert(PREMULTIPLIED.get(upright.mode, upright.mode)).convert("RGBA")
        if np.asarray(layered)[..., 3].min() < 255:
            notes.append(f"transparent pixels of {name} are shown on white")
        found = np.asarray(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"))
    else:
        if upright.mode not in ("RGB", "L", "1", "P"):  # in these, colours stay what they are
            notes.append(f"the colours of {name} ({upright.mode}) are converted to RGB")
        found = np.asarray(upright.convert("RGB"))
    pixels = np.array(found, dtype=np.uint8)
    # Segmenters and fills of plugins, and users, share it with the model. A view cannot be made writable again.
    pixels.flags.writeable = False
    return pixels.view()


def _eight_bits(values: np.ndarray, name: str) -> tuple[UInt8[np.ndarray, "H W"], str]:
    """Grey levels in 8 bits, and the range that they were taken for."""
    if not np.isfinite(values).all():
        raise InputError(f"{_in_words(name)} has grey levels that are not finite.")
    most = float(values.max(initial=0))
    if values.min(initial=0) < 0 or most > 65535:
        raise InputError(
            f"{_in_words(name)} has grey levels from {values.min():g} to {most:g}; give 0 to 1, or 8 or 16 bits."
        )
    # Files of 16 bits are dark if they use few levels; others have no range of their own.
    if (values.dtype.kind == "u" and values.dtype.itemsize == 2) or most > 255:
        top = 65535
    else:
        top = 1 if most <= OVERSHOOT and values.dtype.kind == "f" else 255
    levels = np.rint(values.astype(np.float64) * (255 / top)).clip(0, 255).astype(np.uint8)
    return levels, f"taken for 0 to {top}"


def _of_array(given: object, name: str, max_pixels: int) -> LoadedPicture:
    try:
        array = np.asarray(given.cpu() if hasattr(given, "cpu") else given)
    except Exception as error:  # whatever an object does when it is converted
        raise InputError(f"{shown(given)} is not a picture: {error}.") from error
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        what = f"an array of the shape {array.shape} and the dtype {array.dtype}"
        raise InputError(
            f"A picture is a path, a PIL image, or an array UInt8[H, W], UInt8[H, W, 3] or UInt8[H, W, 4]; this is "
            f"{what if array.dtype != object else shown(given)}."
        )
    _check_size(name, array.shape[1], array.shape[0], max_pixels)
    from PIL import Image

    notes: list[str] = []
    image = Image.fromarray(array.squeeze(2) if array.ndim == 3 and array.shape[2] == 1 else array)
    return LoadedPicture(name, _upright(image, name, notes), tuple(notes))


def _in_words(name: str) -> str:
    """The beginning of a sentence about a picture, which may be called by its file, its number, or its purpose."""
    if name.startswith(("the ", "picture ")):
        return name[0].upper() + name[1:]
    return f"The picture {name}"
