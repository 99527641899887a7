"""The part of a picture that a model sees, where its processor cuts off the rest."""

from __future__ import annotations

from typing import Any

__all__ = ["note_on_crop", "visible_part"]


def visible_part(processor: Any, height: int, width: int) -> tuple[float, float, float, float]:
    """Top, left, height and width of the part of a picture that its processor does not cut off."""
    inner = processor.image_processor
    size, crop = getattr(inner, "size", None) or {}, getattr(inner, "crop_size", None) or {}
    shortest = size.get("shortest_edge") if hasattr(size, "get") else None
    if not getattr(inner, "do_center_crop", False) or not shortest or not getattr(inner, "do_resize", False):
        return 0.0, 0.0, float(height), float(width)
    scale = min(height, width) / shortest
    high, wide = min(height, crop["height"] * scale), min(width, crop["width"] * scale)
    return (height - high) / 2, (width - wide) / 2, high, wide


def note_on_crop(processor: Any, name: str, height: int, width: int) -> str | None:
    """A sentence on the share of a picture that is cut off; ``None`` if all of it is seen."""
    _, _, high, wide = visible_part(processor, height, width)
    unseen = 1 - high * wide / (height * width)
    if unseen < 0.0005:
        return None
    return f"the model's processor cuts off {100 * unseen:.1f} % of {name} at its borders; what is there has no effect"
