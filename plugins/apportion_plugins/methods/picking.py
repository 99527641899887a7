"""Choices of layers and heads by number."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from apportion.errors import InputError, listing, shown
from apportion.results.modules import place_of

__all__ = ["Picked", "checked_pick", "chosen", "heads_of", "layers_left_out", "per_layer"]

Picked = Any
"""``"all"``, one number, a list of numbers, a ``range``, or a tuple of the first number and the one after the last;
negative numbers count from the end. Of heads, also a mapping from layers to any of these."""


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
    if picked == "all" or _is_number(picked):
        return
    several: Sequence[object] = picked if isinstance(picked, (Sequence, range)) and not isinstance(picked, str) else ()
    if not several or not all(_is_number(one) for one in several):
        also = ", or a mapping from layers to any of these" if mapping else ""
        raise InputError(
            f"{name}={shown(picked)} must be 'all', a number, a list of numbers, a range, or a tuple (first, end)"
            f"{also}. Negative numbers count from the end."
        )
    if isinstance(picked, tuple) and len(picked) != 2:
        raise InputError(f"{name}={shown(picked)} must be a tuple (first, end), or a list of numbers.")


def chosen(name: str, picked: Picked, names: Sequence[str]) -> list[int]:
    """Numbers of the layers or heads that are meant, in order.

    Args:
        name: name of the option, for messages.
        picked: the choice, checked by ``checked_pick``.
        names: what there is to choose from.

    Raises:
        InputError: a number is out of range, or there twice, or none is left.
    """
    count = len(names)
    if isinstance(picked, str):
        return list(range(count))
    if isinstance(picked, tuple):
        first, end = (int(one) + count if int(one) < 0 else int(one) for one in picked)
        if not 0 <= first < end <= count:
            raise InputError(f"{name}={shown(picked)} must be a tuple (first, end) with 0 ≤ first < end ≤ {count}.")
        return list(range(first, end))
    found = [int(one) for one in (picked if isinstance(picked, (Sequence, range)) else [picked])]
    for one in found:
        if not -count <= one < count:
            raise InputError(f"{name}={shown(picked)}: there are {count}, {listing(names, 6)}; {one} is none of them.")
    found = [one % count for one in found]
    if len(set(found)) < len(found):
        raise InputError(f"{name}={shown(picked)} names one of them twice.")
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
        return dict.fromkeys(chosen("layers", layers, names), heads)
    given: dict[int, Picked] = {}
    for layer, picked in heads.items():
        (number,) = chosen("a layer in heads", _layer_number("heads", layer), names)
        if number in given:
            raise InputError(f"heads={shown(heads)} names layer {number} twice.")
        given[number] = picked
    wanted = sorted(given) if layers == "all" else chosen("layers", layers, names)
    lacking = [number for number in wanted if number not in given]
    if lacking:
        raise InputError(
            f"heads={shown(heads)} must name the heads of all chosen layers; it lacks {listing(map(str, lacking))}."
        )
    return {number: given[number] for number in wanted}


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _layer_number(name: str, layer: object) -> int:
    """The number of a layer; JSON has only texts as keys."""
    if _is_number(layer):
        return int(layer)  # type: ignore[call-overload, no-any-return]
    if isinstance(layer, str) and layer.lstrip("-").isdecimal():
        return int(layer)
    raise InputError(f"{name} must map numbers of layers to heads; {shown(layer)} is no number.")


def heads_of(picked: Picked, count: int, layer: str) -> list[int]:
    """Numbers of the heads that are meant in one layer, of which there are ``count``.

    Raises:
        InputError: there is no such head.
    """
    return chosen("heads", picked, [f"head {number} of {layer}" for number in range(count)])


def layers_left_out(names: Sequence[str]) -> list[str]:
    """A note if some layers of a model are not among those that can be chosen, because they do not attend."""
    found = [place_of(name).layer for name in names]
    if None in found or found == list(range(len(found))):
        return []
    return [f"only layers {listing((str(one) for one in found), 24)} of this model attend; layers= counts these alone"]
