"""Rows and model inputs: what is scored by itself, whatever batch it stands in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Media", "ModelInput", "Row"]


@dataclass(frozen=True, slots=True, order=True)
class Media:
    """Something besides tokens that a model reads with a prompt, such as an image.

    Two media are equal when kind and digest are: caches, the evaluation memory and the planner compare those.

    Attributes:
        kind: such as ``"image"``.
        digest: a hash of the content, in hexadecimal.
        data: the content, in whatever form the session takes; not compared.
    """

    kind: str
    digest: str
    data: object = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, kind: str, data: bytes | np.ndarray) -> Media:
        """Media with the digest of these bytes, or of this array's shape, dtype and values."""
        digest = hashlib.blake2b(digest_size=16)
        if isinstance(data, np.ndarray):
            digest.update(f"{data.shape}{data.dtype.str}".encode())
            digest.update(np.ascontiguousarray(data).tobytes())
        else:
            digest.update(data)
        return cls(kind, digest.hexdigest(), data)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What the model reads before the target: token ids, special tokens included, and media in their order.

    Where media stand among the tokens is for the model's own placeholder tokens to say.
    """

    ids: tuple[int, ...]
    media: tuple[Media, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Adapters may give lists; inputs are compared and remembered, so they must not change.
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "media", tuple(self.media))
        # A game looks each input up several times, and tuples do not remember their hash.
        object.__setattr__(self, "_hash", hash((self.ids, self.media)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """A prompt and the target that is scored after it.

    Attributes:
        prompt: token ids, at least one.
        target: token ids, at least one.
        media: what the prompt shows besides its tokens.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    media: tuple[Media, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """The token ids that a causal model reads: the last target token is predicted only."""
        return self.prompt + self.target[:-1]
