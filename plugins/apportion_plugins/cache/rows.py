"""Lossless encoding of rows of log-probabilities as bytes, dtype included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["pack", "unpack"]

CODES = {torch.float32: 1, torch.float64: 2, torch.float16: 3, torch.bfloat16: 4}
DTYPES = {code: dtype for dtype, code in CODES.items()}


def pack(log_probs: Float[Tensor, "B T"], lengths: Sequence[int] | None = None) -> list[bytes | None]:
    """Encode each row as a dtype code followed by raw numbers; ``None`` for rows that are not finite.

    Args:
        log_probs: scores of B rows.
        lengths: number of target tokens in each row; ``None`` for the full width.
    """
    code = CODES.get(log_probs.dtype)
    if code is None:
        return [None] * len(log_probs)
    lengths = [log_probs.shape[1]] * len(log_probs) if lengths is None else lengths
    finite = [bool(row[:n].isfinite().all()) for row, n in zip(log_probs, lengths, strict=True)]
    raw = log_probs.detach().cpu().contiguous().view(torch.uint8).numpy()
    size = log_probs.dtype.itemsize
    return [
        bytes([code]) + row[: n * size].tobytes() if good else None
        for row, n, good in zip(raw, lengths, finite, strict=True)
    ]


def unpack(rows: Sequence[bytes | None], width: int) -> Float[Tensor, "N T"] | None:
    """Decode rows into a tensor, with NaN for rows that are ``None``; ``None`` if no row is known.

    Args:
        rows: from ``pack``. If their dtypes differ, the tensor is float64, which represents them all exactly.
        width: T. Rows of another length count as unknown.
    """
    places: dict[torch.dtype, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        dtype = DTYPES.get(row[0]) if row else None
        if row and dtype is not None and len(row) == 1 + width * dtype.itemsize:
            places[dtype].append(i)
    if not places:
        return None
    widest = next(iter(places)) if len(places) == 1 else torch.float64
    found = torch.full((len(rows), width), torch.nan, dtype=widest)
    for dtype, where in places.items():
        raw = bytearray().join(row[1:] for i in where if (row := rows[i]))
        found[where] = torch.frombuffer(raw, dtype=dtype).reshape(-1, width).to(widest)
    return found
