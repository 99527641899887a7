"""Content addresses: which model, target and prompt a row of log-probabilities belongs to."""

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
"""Of addresses and rows: another number, and nothing that was stored is found again."""
SCOPE_BYTES, PROMPT_BYTES = 8, 16
VERSIONS = ("apportion", "torch", "transformers")


def scope_of(request: Request, session: Session) -> bytes:
    """What all addresses of a run begin with: a hash of the model as it is now, and of where and how it runs.

    Raises:
        CapabilityError: something takes part in scoring that cannot be told from what it was before.
    """
    for name, distribution in request.scorers:
        if distribution == "object":
            raise CapabilityError(f"batches may be scored by {name!r} of plugins=[…], an object without a version")
    info, installed = session.info, versions()
    parts = (
        FORMAT,
        sys.byteorder,
        session.checksum(),
        f"{type(session).__module__}.{type(session).__qualname__}",
        (info.backend, info.device, info.dtype),
        tuple(installed.get(package) for package in VERSIONS),
        _precision(),
        request.scorers,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def row_keys(scope: bytes, rows: Sequence[Row]) -> list[bytes]:
    """The address of each row: its target, its prompt, and the media of the prompt.

    Args:
        scope: from ``scope_of``. With the target it begins the address too, so that rows of a run lie side by side.
        rows: prompts, targets and media.
    """
    narrow = {target: _after(scope, target) for target in {row.target for row in rows}}
    return [_key(narrow[row.target], _content(row)) for row in rows]


def _content(row: Row) -> bytes:
    content = array("q", row.prompt).tobytes()
    if not row.media:
        return content
    # Token ids are never negative, so that what follows cannot be taken for some.
    return content + array("q", [-1]).tobytes() + repr([(media.kind, media.digest) for media in row.media]).encode()


def _after(scope: bytes, target: Iterable[int]) -> bytes:
    return hashlib.blake2b(array("q", target).tobytes(), digest_size=32, key=scope).digest()


def _key(scope: bytes, prompt: bytes) -> bytes:
    return scope[:SCOPE_BYTES] + hashlib.blake2b(prompt, digest_size=PROMPT_BYTES, key=scope).digest()


def _precision() -> str:
    """How exactly products of fp32 matrices are computed here: TF32 and bf16 are other numbers."""
    places = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    found = [getattr(place, "fp32_precision", None) for place in places]
    if None in found:  # before PyTorch 2.9
        return str(torch.get_float32_matmul_precision())
    return " ".join("ieee" if name == "none" else str(name) for name in found)
