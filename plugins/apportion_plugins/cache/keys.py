"""Cache keys: hashes of the model, target and prompt of a row of log-probabilities."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from apportion.errors import CapabilityError
from apportion.results.provenance import versions

if TYPE_CHECKING:
    from apportion.protocols.backend import Session
    from apportion.protocols.request import Request
    from apportion.protocols.row import Row

__all__ = ["row_keys", "scope_of"]

FORMAT = 3
"""Version of keys and rows; changing it invalidates everything that was stored."""
SCOPE_BYTES, PROMPT_BYTES = 8, 16
VERSIONS = ("apportion", "torch", "transformers")


def scope_of(request: Request, session: Session) -> bytes:
    """The scope of a run's keys: a hash of the model's current state and of where and how it runs.

    Raises:
        CapabilityError: something takes part in scoring whose changes cannot be detected.
    """
    for name, distribution in request.scorers:
        if distribution == "object":
            raise CapabilityError(f"batches may be scored by {name!r} of plugins=[…], an object without a version")
    info, installed = session.info, versions()
    parts = (
        FORMAT,
        sys.byteorder,
        _checksum(session),
        f"{type(session).__module__}.{type(session).__qualname__}",
        (info.backend, info.device, info.dtype),
        tuple(installed.get(package) for package in VERSIONS),
        _precision(),
        request.scorers,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def row_keys(scope: bytes, rows: Sequence[Row]) -> list[bytes]:
    """The key of each row: a hash of its target, its prompt, and the prompt's media.

    Args:
        scope: from ``scope_of``. Keys start with a hash of scope and target, so that rows of a run are adjacent.
        rows: prompts, targets and media.
    """
    narrow = {target: _after(scope, target) for target in {row.target for row in rows}}
    return [_key(narrow[row.target], _content(row)) for row in rows]


def _content(row: Row) -> bytes:
    content = array("q", row.prompt).tobytes()
    if not row.media:
        return content
    # Token ids are never negative, so the media cannot be mistaken for tokens.
    return content + array("q", [-1]).tobytes() + repr([(media.kind, media.digest) for media in row.media]).encode()


def _after(scope: bytes, target: Iterable[int]) -> bytes:
    return hashlib.blake2b(array("q", target).tobytes(), digest_size=32, key=scope).digest()


def _key(scope: bytes, prompt: bytes) -> bytes:
    return scope[:SCOPE_BYTES] + hashlib.blake2b(prompt, digest_size=PROMPT_BYTES, key=scope).digest()


def _checksum(session: Session) -> str:
    """The session's checksum, which must say something: two models without one must not share scores."""
    found: object = session.checksum()
    if not isinstance(found, str) or not found:
        raise CapabilityError(
            f"the checksum() of the backend {session.info.backend!r} returned {found!r:.40}, not a non-empty string"
        )
    return found


def _precision() -> str:
    """The precision of fp32 matrix products, which changes scores: TF32 or bf16 may be used."""
    places = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    found = [getattr(place, "fp32_precision", None) for place in places]
    if None in found:  # before PyTorch 2.9
        return str(torch.get_float32_matmul_precision())
    return " ".join("ieee" if name == "none" else str(name) for name in found)
