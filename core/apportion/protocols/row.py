"""Rows and model inputs: the units of scoring, which get the same scores in any batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Media", "ModelInput", "Row"]


@dataclass(frozen=True, slots=True, order=True)
class Media:
    """Non-text input that a model reads with a prompt, such as an image.

    Two media are equal if their kind and digest are equal; caches, the evaluation memory and the planner rely on that.

    Attributes:
        kind: kind of input, such as ``"image"``. A session states the kinds that it reads.
        digest: hash of the content, in hexadecimal.
        data: the content, or a function that makes it, so that thousands of perturbed pictures need not be kept; not
            compared. Images are arrays ``UInt8[H, W, 3]``; for other kinds, any form that the session accepts.
    """

    kind: str
    digest: str
    data: object = field(default=None, compare=False, repr=False)

    def content(self) -> Any:
        """The content; made now if ``data`` is a function."""
        return self.data() if callable(self.data) else self.data

    @classmethod
    def of(cls, kind: str, data: bytes | np.ndarray, again: Callable[[], object] | None = None) -> Media:
        """Make media with the digest of these bytes, or of this array's shape, dtype and values.

        Args:
            kind: kind of input.
            data: the content.
            again: makes the same content again, to be kept in its place.
        """
        digest = hashlib.blake2b(digest_size=16)
        if isinstance(data, np.ndarray):
            digest.update(f"{data.shape}{data.dtype.str}".encode())
            digest.update(np.ascontiguousarray(data).tobytes())
        else:
            digest.update(data)
        return cls(kind, digest.hexdigest(), data if again is None else again)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input that the model reads before the target: token ids, special tokens included, and media in order.

    The model's own placeholder tokens mark the positions of media among the tokens.

    Attributes:
        ids: token ids of the prompt.
        media: non-text inputs of the prompt.
        answer: the token ids that the model reads in place of each target token but the last, before the tokens that
            follow it: none for one that is absent. ``None`` for the target's own tokens.
    """

    ids: tuple[int, ...]
    media: tuple[Media, ...] = ()
    answer: tuple[tuple[int, ...], ...] | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Adapters may pass lists; inputs are dict keys, so they must be immutable.
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "media", tuple(self.media))
        # A game looks up each input several times, and tuples do not cache their hash.
        object.__setattr__(self, "_hash", hash((self.ids, self.media, self.answer)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """A prompt and the target that is scored after it.

    Attributes:
        prompt: token ids, at least one.
        target: token ids, at least one.
        media: non-text inputs of the prompt.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    media: tuple[Media, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """The token ids that a causal model reads: all but the last target token, which is only predicted."""
        return self.prompt + self.target[:-1]

    @property
    def source(self) -> ModelInput:
        """The prompt and its media."""
        return ModelInput(self.prompt, self.media)
