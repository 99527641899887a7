"""A short name of a model as it is now, and the memory of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from apportion_backends.torch.stable_text import stable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fingerprint", "plain_parts", "weights_bytes"]


def fingerprint(model: PreTrainedModel, settings: str = "") -> str:
    """A hash of the configuration, of classes and settings, and of a sample of every weight.

    It tells models apart without reading gigabytes: 64 evenly spaced values of each tensor, its name,
    shape and dtype. A change that misses every sampled value is not seen.

    Args:
        model: the model.
        settings: its classes and plain settings, see ``ModelState.settings``.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(settings.encode("utf-8", "backslashreplace"))
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    samples: dict[torch.device, list[torch.Tensor]] = {}
    # Not state_dict(), which some quantised layers change their weights in.
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        for part in plain_parts(tensor.detach()):
            if not isinstance(part, torch.Tensor):
                digest.update(f"{name}{part}".encode())
                continue
            digest.update(f"{name}{tuple(part.shape)}{part.dtype}".encode())
            if part.numel() and not part.is_meta:
                step = max(1, part.numel() // 64)
                sample = part.contiguous().as_strided((min(64, -(-part.numel() // step)),), (step,))
                samples.setdefault(part.device, []).append(sample.double())
    # One transfer from each device.
    for parts in samples.values():
        digest.update(torch.cat(parts).cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_bytes(model: PreTrainedModel) -> int:
    """Bytes that the parameters take."""
    parts = (part for parameter in model.parameters() for part in plain_parts(parameter.detach()))
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, torch.Tensor))


def plain_parts(tensor: Tensor) -> Iterator[Tensor | str]:
    """Plain tensors and settings: a quantised, sparse or composed tensor is more than one."""
    flatten: Callable[[], tuple[list[str], object]] | None = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        names, context = flatten()
        yield stable(repr(context))
        for inner in names:
            yield inner
            yield from plain_parts(getattr(tensor, inner))
    elif tensor.is_quantized:
        yield from _quantised(tensor)
    elif tensor.layout is not torch.strided:
        yield tensor.to_dense()
    else:
        yield tensor.resolve_conj().resolve_neg()


def _quantised(tensor: Tensor) -> Iterator[Tensor | str]:
    scheme = tensor.qscheme()
    yield str(scheme)
    if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        yield f"{tensor.q_scale()!r} {tensor.q_zero_point()}"
    else:
        yield from (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())
        yield str(tensor.q_per_channel_axis())
    yield tensor.int_repr()
