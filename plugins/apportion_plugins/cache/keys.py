"""Content addresses: which model, target and prompt a row of log-probabilities belongs to."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from apportion.results.provenance import versions
from apportion_plugins.cache.checksum import model_checksum
from apportion_plugins.cache.unseen import UnseenError

if TYPE_CHECKING:
    from apportion.protocols.backend import ScoringBatch, Session
    from apportion.protocols.request import Request

__all__ = ["batch_keys", "prompt_keys", "scope_of"]

FORMAT = 2
"""Of addresses and rows: another number, and nothing that was stored is found again."""
SCOPE_BYTES, PROMPT_BYTES = 8, 16
VERSIONS = ("apportion", "torch", "transformers")


def scope_of(request: Request, session: Session) -> bytes:
    """What all addresses of a run begin with: a hash of the model as it is now, and of where and how it runs.

    Raises:
        UnseenError: something takes part in scoring that cannot be told from what it was before.
    """
    for name, distribution in request.scorers:
        if distribution == "object":
            raise UnseenError(f"batches may be scored by {name!r} of plugins=[…], an object without a version")
    info, installed = session.info, versions()
    parts = (
        FORMAT,
        sys.byteorder,
        _scored_by(session),
        f"{type(session).__module__}.{type(session).__qualname__}",
        (info.backend, info.device, info.dtype),
        tuple(installed.get(package) for package in VERSIONS),
        _precision(),
        request.scorers,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def prompt_keys(scope: bytes, target: Iterable[int], prompts: Iterable[Iterable[int]]) -> list[bytes]:
    """The address of each prompt, followed by a target.

    Args:
        scope: from ``scope_of``. With the target it begins the address too, so that rows of a run lie side by side.
        target: token ids.
        prompts: token ids of each.
    """
    narrow = _after(scope, target)
    return [_key(narrow, array("q", ids).tobytes()) for ids in prompts]


def batch_keys(scope: bytes, batch: ScoringBatch) -> list[bytes]:
    """The address of each row of a batch."""
    rows = batch.rows
    narrow = {target: _after(scope, target) for target in {row.target for row in rows}}
    return [_key(narrow[row.target], array("q", row.prompt).tobytes()) for row in rows]


def _after(scope: bytes, target: Iterable[int]) -> bytes:
    return hashlib.blake2b(array("q", target).tobytes(), digest_size=32, key=scope).digest()


def _key(scope: bytes, prompt: bytes) -> bytes:
    return scope[:SCOPE_BYTES] + hashlib.blake2b(prompt, digest_size=PROMPT_BYTES, key=scope).digest()


def _scored_by(session: Session) -> str:
    """A checksum of the model behind a session."""
    model = getattr(session, "model", None)
    if isinstance(model, torch.nn.Module):
        return model_checksum(model)
    stated = getattr(session, "checksum", None)
    if isinstance(stated, str) and stated:
        return stated
    raise UnseenError(
        f"the backend {session.info.backend!r} does not tell which weights it scores with: its session has neither "
        "`model` nor `checksum`"
    )


def _precision() -> str:
    """How exactly products of fp32 matrices are computed here: TF32 and bf16 are other numbers."""
    places = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    found = [getattr(place, "fp32_precision", None) for place in places]
    if None in found:  # before PyTorch 2.9
        return str(torch.get_float32_matmul_precision())
    return " ".join("ieee" if name == "none" else str(name) for name in found)
