"""A short name of a model as it is now, and the memory of its weights."""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from typing import TYPE_CHECKING

import torch

from apportion_backends.torch.tensor_sums import plain_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fingerprint", "weights_bytes"]


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of the configuration and of a sample of every weight.

    It tells models apart without reading gigabytes: 64 evenly spaced values of each tensor, its name,
    shape and dtype. A change that misses every sampled value is not seen.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    samples: dict[torch.device, list[torch.Tensor]] = {}
    # Not state_dict(), which some quantised layers change their weights in.
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        for part in plain_parts(tensor.detach()):
            if not isinstance(part, torch.Tensor):
                digest.update(f"{name}{part}".encode())
                continue
            digest.update(f"{name}{tuple(part.shape)}{part.dtype}".encode())
            flat = part.reshape(-1)
            if flat.numel() and not flat.is_meta:
                sample = flat[:: max(1, flat.numel() // 64)][:64]
                samples.setdefault(flat.device, []).append(sample.double())
    # One transfer from each device.
    for parts in samples.values():
        digest.update(torch.cat(parts).cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_bytes(model: PreTrainedModel) -> int:
    """Bytes that the parameters take."""
    parts = (part for parameter in model.parameters() for part in plain_parts(parameter.detach()))
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, torch.Tensor))
