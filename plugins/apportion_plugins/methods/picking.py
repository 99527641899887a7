"""Choices of layers and heads by number."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from apportion.errors import InputError, listing, shown
from apportion.results.modules import place_of

__all__ = ["Picked", "checked_pick", "chosen", "heads_of", "layers_left_out", "per_layer"]

Picked = Any
"""``"all"``, one number, a list of numbers, a ``range``, a tuple of the first number and the one after the last, or a
text such as ``"10-20"`` (both included) or ``"10:20"`` (like a slice, without 20); negative numbers count from the end.
Of heads, also a mapping from layers to any of these."""

FROM_TO = re.compile(r"(\d+)\s*[-–]\s*(\d+)")
SLICE = re.compile(r"(-?\d+)?\s*:\s*(-?\d+)?")


def checked_pick(name: str, picked: object, *, mapping: bool = False) -> None:
    """Check the type of a choice of layers or heads, before the model is known.

    Raises:
        InputError: it is something else than a choice.
    """
    if mapping and isinstance(picked, Mapping):
        if not picked:
            raise InputError(f"{name}={shown(picked)} has no layers.")
        for layer, heads in picked.items():
            _layer_number(name, layer)
            checked_pick(f"{name}[{layer}]", heads)
        return
    if _is_number(picked) or (isinstance(picked, str) and (picked == "all" or _ends(picked) is not None)):
        return
    several: Sequence[object] = picked if isinstance(picked, (Sequence, range)) and not isinstance(picked, str) else ()
    if not several or not all(_is_number(one) for one in several):
        also = ", or a mapping from layers to any of these" if mapping else ""
        raise InputError(
            f"{name}={shown(picked)} must be 'all', a number, a list of numbers, a range, a tuple (first, end), or a "
            f"text such as '10-20' (both included) or '10:20' (without 20){also}. Negative numbers count from the end."
        )
    if isinstance(picked, tuple) and len(picked) != 2:
        raise InputError(f"{name}={shown(picked)} must be a tuple (first, end), or a list of numbers.")


def chosen(label: str, picked: Picked, count: int, owner: str, noun: str) -> list[int]:
    """Numbers of the layers or heads that are meant, in order.

    Args:
        label: start of messages: the option and its value.
        picked: the choice, checked by ``checked_pick``.
        count: how many there are to choose from.
        owner: what has them, for messages: ``"layer 3"``.
        noun: what one of them is called.

    Raises:
        InputError: a number is out of range, or there twice, or none is left.
    """
    if isinstance(picked, str) and picked == "all":
        return list(range(count))
    there = f"{owner} has {noun}s 0 to {count - 1}" if count > 1 else f"{owner} has one {noun}, 0"
    ends = (_ends(picked) or (0, None)) if isinstance(picked, str) else picked
    if isinstance(ends, tuple):
        first, end = (count if one is None else int(one) + count if int(one) < 0 else int(one) for one in ends)
        if not 0 <= first < end <= count:
            problem = f": {there}" if first < end else " has none: the first must be before the end"
            raise InputError(f"{label}{problem}.")
        return list(range(first, end))
    found = [int(one) for one in (picked if isinstance(picked, (Sequence, range)) else [picked])]
    for one in found:
        if not -count <= one < count:
            raise InputError(f"{label}: {there}.")
    found = [one % count for one in found]
    if len(set(found)) < len(found):
        raise InputError(f"{label} names {noun} {_twice(found)} twice.")
    return found


def per_layer(heads: Picked, layers: Picked, names: Sequence[str]) -> dict[int, Picked]:
    """The choice of heads in each layer that is meant, by number of the layer.

    Args:
        heads: the choice of heads; a mapping chooses its layers, unless ``layers`` does.
        layers: the choice of layers.
        names: names of all layers.

    Raises:
        InputError: a layer does not exist, or a mapping lacks one.
    """
    if not isinstance(heads, Mapping):
        return dict.fromkeys(_chosen_layers(f"layers={shown(layers)}", layers, names), heads)
    given: dict[int, Picked] = {}
    for layer, picked in heads.items():
        (number,) = _chosen_layers(f"heads={shown(heads)}", _layer_number("heads", layer), names)
        if number in given:
            raise InputError(f"heads={shown(heads)} names layer {number} twice.")
        given[number] = picked
    wanted = sorted(given) if layers == "all" else _chosen_layers(f"layers={shown(layers)}", layers, names)
    lacking = [number for number in wanted if number not in given]
    if lacking:
        raise InputError(
            f"heads={shown(heads)} must name the heads of all chosen layers; it lacks {listing(map(str, lacking))}."
        )
    return {number: given[number] for number in wanted}


def _chosen_layers(label: str, picked: Picked, names: Sequence[str]) -> list[int]:
    noun = "attention layer" if layers_left_out(names) else "layer"
    return chosen(label, picked, len(names), "this model", noun)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _layer_number(name: str, layer: object) -> int:
    """The number of a layer; JSON has only texts as keys."""
    if _is_number(layer):
        return int(layer)  # type: ignore[call-overload, no-any-return]
    if isinstance(layer, str) and layer.lstrip("-").isdecimal():
        return int(layer)
    raise InputError(f"{name} must map numbers of layers to heads; {shown(layer)} is not a number.")


def heads_of(picked: Picked, count: int, layer: str, noun: str = "head") -> list[int]:
    """Numbers of the heads that are meant in one layer, of which there are ``count``.

    Args:
        picked: the choice.
        count: number of heads of the layer.
        layer: name of the layer, or of its attention.
        noun: what a head is called in messages.

    Raises:
        InputError: there is no such head.
    """
    number = place_of(layer).layer
    owner = repr(layer) if number is None else f"layer {number}"
    return chosen(f"heads={shown(picked)}", picked, count, owner, noun)


def _ends(text: str) -> tuple[int, int | None] | None:
    """The first number of a range that is given as a text, and the one after its last; ``None`` for another text."""
    given = text.strip()
    if found := FROM_TO.fullmatch(given):
        return int(found[1]), int(found[2]) + 1
    if found := SLICE.fullmatch(given):
        return int(found[1] or 0), None if found[2] is None else int(found[2])
    return None


def _twice(numbers: Sequence[int]) -> int:
    return next(one for i, one in enumerate(numbers) if one in numbers[:i])


def layers_left_out(names: Sequence[str]) -> list[str]:
    """A note if some layers of a model are not among those that can be chosen, because they do not attend."""
    found = [place_of(name).layer for name in names]
    if None in found or found == list(range(len(found))):
        return []
    return [f"only layers {listing((str(one) for one in found), 24)} of this model attend; layers= counts these alone"]
