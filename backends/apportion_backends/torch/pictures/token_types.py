"""Numbers that a model reads for each token beside its id: which tokens are a picture's, and which are the prompt's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from apportion.protocols.row import Row

__all__ = ["TokenTypes", "UnknownInputError"]

IDS = ("input_ids", "attention_mask", "labels")
"""Inputs for each token that are not types."""


class UnknownInputError(Exception):
    """The processor returns something for each token that cannot be extended over a target."""


@dataclass(frozen=True, slots=True)
class TokenTypes:
    """Types of tokens, by the names of the model's arguments.

    Attributes:
        of_pictures: the arguments that are 1 for the tokens of pictures and else 0.
        of_nothing: the arguments that are 0 for all tokens of a prompt.
        image_ids: ids of the tokens of pictures.
        of_target: the number for tokens of the target, and for padding. PaliGemma reads a prompt (0) in both
            directions, and a target (1) in one.
    """

    of_pictures: tuple[str, ...] = ()
    of_nothing: tuple[str, ...] = ()
    image_ids: tuple[int, ...] = ()
    of_target: int = 0

    @classmethod
    def learned(cls, samples: Sequence[Mapping[str, Any]], image_ids: frozenset[int]) -> TokenTypes:
        """Learn the rules from what the processor returns for some prompts of different lengths.

        Raises:
            UnknownInputError: it returns other numbers.
        """
        ids, found = tuple(sorted(image_ids)), {}
        for name in _per_token(samples):
            pictures = all(torch.equal(one[name][0].long(), _isin(one["input_ids"][0], ids).long()) for one in samples)
            nothing = all(not bool(one[name].any()) for one in samples)
            if not pictures and not nothing:
                raise UnknownInputError(f"what its processor returns as {name} follows no rule that is known here")
            found[name] = pictures
        return cls(
            tuple(name for name, pictures in found.items() if pictures),
            tuple(name for name, pictures in found.items() if not pictures),
            ids,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments."""
        return self.of_pictures + self.of_nothing

    def __call__(self, ids: Int[Tensor, "B L"], rows: Sequence[Row]) -> dict[str, Int[Tensor, "B L"]]:
        """The model's arguments for prompts and targets, padded on the right."""
        if not self.names:
            return {}
        places = torch.arange(ids.shape[1], device=ids.device)
        prompt = places < torch.tensor([len(row.prompt) for row in rows], device=ids.device)[:, None]
        nothing = torch.where(prompt, 0, self.of_target)
        pictures = torch.where(prompt, _isin(ids, self.image_ids).long(), self.of_target)
        return dict.fromkeys(self.of_nothing, nothing) | dict.fromkeys(self.of_pictures, pictures)


def _per_token(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the inputs that have a number for each token, beside ids and mask.

    Raises:
        UnknownInputError: an input has more than one number for each token.
    """
    shapes = [one["input_ids"].shape for one in samples]
    found = []
    for name, value in samples[0].items():
        begins = (one[name].shape[:2] == shape for one, shape in zip(samples, shapes, strict=True))
        if name in IDS or not isinstance(value, Tensor) or not all(begins):
            continue
        if value.ndim > 2:
            raise UnknownInputError(f"what its processor returns as {name} cannot be extended over a target")
        found.append(name)
    return found


def _isin(ids: Tensor, wanted: Sequence[int]) -> Tensor:
    return torch.isin(ids, torch.tensor(wanted, device=ids.device, dtype=ids.dtype))
