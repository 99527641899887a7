"""The encoder of pictures: each distinct picture is encoded once, and its features are kept."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.protocols.row import Media
from apportion_backends.torch.pictures.vision_inputs import VisionInputs

__all__ = ["Features", "Tower", "features_argument", "joined_geometry"]

GEOMETRY = ("image_grid_thw", "image_grid_hw", "image_grid_hws")
"""Arguments that the language model reads beside features, to count positions."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one picture, as the language model reads them in place of placeholder tokens.

    Attributes:
        parts: the features of each of its tiles, or of the whole picture.
        deep: for each layer that reads more of them, the same.
        geometry: arguments that say how its tokens are arranged.
    """

    parts: tuple[Float[Tensor, "N D"], ...]
    deep: tuple[tuple[Float[Tensor, "N D"], ...], ...]
    geometry: Mapping[str, Tensor]

    @property
    def tokens(self) -> int:
        """Number of placeholder tokens that they replace."""
        return sum(len(part) for part in self.parts)

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        tensors = (*self.parts, *(part for layer in self.deep for part in layer))
        return sum(part.numel() * part.element_size() for part in tensors)


class Tower:
    """Encodes pictures with a model, and keeps what was used last.

    Args:
        model: the model, in ``scoring_mode`` while it encodes.
        inputs: returns the model's arguments for some pictures.
        budget: bytes of features that are kept from batch to batch.
        tokens_at_once: number of patches to encode in one forward pass.

    Attributes:
        encoded: number of pictures encoded so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: Callable[[Sequence[Media]], VisionInputs],
        *,
        budget: int,
        tokens_at_once: int,
    ) -> None:
        self.encoded = 0
        self._model = model
        self._inputs = inputs
        self._budget = budget
        self._at_once = tokens_at_once
        self._kept: OrderedDict[Media, Features] = OrderedDict()

    def __call__(self, pictures: Iterable[Media]) -> dict[Media, Features]:
        """The features of distinct pictures; those that are not kept are encoded."""
        wanted = list(dict.fromkeys(pictures))
        found = {one: self._kept[one] for one in wanted if one in self._kept}
        for some, inputs in self._groups([one for one in wanted if one not in found]):
            found |= zip(some, self._encode(inputs), strict=True)
        self._keep(found)
        return found

    def forget(self) -> None:
        """Discard all features."""
        self._kept = OrderedDict()

    def _keep(self, found: Mapping[Media, Features]) -> None:
        kept = OrderedDict((one, features) for one, features in self._kept.items() if one not in found)
        kept.update(found)
        total = sum(features.bytes for features in kept.values())
        while total > self._budget and kept:
            _, gone = kept.popitem(last=False)
            total -= gone.bytes
        self._kept = kept

    def _groups(self, pictures: Sequence[Media]) -> Iterable[tuple[list[Media], list[VisionInputs]]]:
        """Pictures whose inputs have the same shapes, as many as are encoded in one forward pass."""
        waiting: dict[Hashable, tuple[list[Media], list[VisionInputs]]] = {}
        for one in pictures:
            inputs = self._inputs([one])
            some, theirs = waiting.setdefault(_shapes(inputs), ([], []))
            some.append(one)
            theirs.append(inputs)
            if len(some) >= self._at_once // max(1, _patches(self._model, inputs)):
                yield waiting.pop(_shapes(inputs))
        yield from waiting.values()

    def _encode(self, inputs: Sequence[VisionInputs]) -> list[Features]:
        """Features of pictures whose inputs have the same shapes, from one forward pass."""
        function: Any = self._model.get_image_features
        named = inspect.signature(function).parameters
        joined = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0] if name in named}
        output = function(**joined, return_dict=True)
        parts = list(output.pooler_output)
        deep = [list(layer) for layer in getattr(output, "deepstack_features", None) or ()]
        each, rest = divmod(len(parts), len(inputs))
        if rest:
            raise ValueError(f"{len(inputs)} pictures have {len(parts)} parts")
        self.encoded += len(inputs)
        self._make = _maker(output)
        return [
            Features(
                tuple(parts[i * each : (i + 1) * each]),
                tuple(tuple(layer[i * each : (i + 1) * each]) for layer in deep),
                {name: one[name] for name in GEOMETRY if name in one},
            )
            for i, one in enumerate(inputs)
        ]

    def arguments(self, features: Sequence[Features]) -> dict[str, Any]:
        """The model's arguments for pictures in the order of their placeholders."""
        return {"mm_encoder_outputs": {"image": self._make(features)}, **joined_geometry(features)}


def joined_geometry(features: Sequence[Features]) -> dict[str, Tensor]:
    """Arguments that say how the tokens of some pictures are arranged, in their order."""
    return {name: torch.cat([one.geometry[name] for one in features]) for name in features[0].geometry}


def features_argument(model: nn.Module) -> bool:
    """True if a model reads features in place of pictures."""
    forward = getattr(model, "forward", None)
    names = inspect.signature(forward).parameters if callable(forward) else ()
    return "mm_encoder_outputs" in names and callable(getattr(model, "get_image_features", None))


def _maker(output: Any) -> Callable[[Sequence[Features]], Any]:
    """A function that makes the output of an encoder from features, in the same form."""
    kind, stacked = type(output), isinstance(output.pooler_output, Tensor)

    def make(features: Sequence[Features]) -> Any:
        parts = [part for one in features for part in one.parts]
        made = kind(pooler_output=torch.stack(parts) if stacked else parts)
        layers = len(features[0].deep)
        if layers:
            made.deepstack_features = [[part for one in features for part in one.deep[i]] for i in range(layers)]
        return made

    return make


def _shapes(inputs: VisionInputs) -> Hashable:
    return tuple((name, tuple(value.shape)) for name, value in inputs.items() if isinstance(value, Tensor))


def _patches(model: PreTrainedModel, inputs: VisionInputs) -> int:
    """Number of patches of the vision inputs of one picture."""
    pixels = inputs.get("pixel_values")
    if not isinstance(pixels, Tensor):
        return 1
    if pixels.ndim == 2:  # patches come cut out
        return len(pixels)
    size = getattr(getattr(model.config, "vision_config", None), "patch_size", None) or 16
    sides = size if isinstance(size, list | tuple) else (size, size)
    return max(1, pixels.numel() // (3 * int(sides[0]) * int(sides[-1])))
