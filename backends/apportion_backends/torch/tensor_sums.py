"""Checksums of every bit of a tensor, on any device and of any kind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from apportion.errors import CapabilityError
from apportion_backends.torch.fingerprint import plain_parts

__all__ = ["TensorSums"]

WIDTH = 1024
"""32-bit words that are summed together."""
CPU_LINES, GPU_LINES = 64, 4096
"""Sums taken at a time: what fits into a CPU's cache, and what keeps a GPU busy (32 MiB)."""


class TensorSums:
    """Sums of a tensor's bits with random weights, modulo 2^64: a value changed, zeroed or moved shows.

    The weights are odd and the same in every process, so that sums can be compared between processes. Words
    are 32 bits wide, because a product modulo 2^64 keeps little of the highest bits of wider ones.
    """

    def __init__(self) -> None:
        self._weights: dict[torch.device, Tensor] = {}

    def __call__(self, name: str, tensor: Tensor) -> Iterator[bytes]:
        """Compute the sums and settings of all parts of a tensor.

        Args:
            name: name of the tensor in messages.
            tensor: tensor of any layout, dtype or subclass.

        Raises:
            CapabilityError: its numbers are not in memory.
        """
        with torch.no_grad():
            for part in plain_parts(tensor.detach()):
                if isinstance(part, Tensor):
                    if part.is_meta:
                        raise CapabilityError(
                            f"the weights {name!r} are not in memory (offloaded, or on the meta device)"
                        )
                    yield self._sums(part.contiguous().reshape(-1).view(torch.uint8))
                else:
                    yield part.encode()

    def _sums(self, flat: Tensor) -> bytes:
        """Weighted sums of the words of a flat ``uint8`` tensor, and the bytes left over."""
        if flat.storage_offset() % 4:
            flat = flat.clone()
        whole = len(flat) // 4 * 4
        words = flat[:whole].view(torch.int32)
        lines = len(words) // WIDTH
        weights = self._weights_on(flat.device)
        step = CPU_LINES if flat.device.type == "cpu" else GPU_LINES
        chunks = torch.split(words[: lines * WIDTH].view(-1, WIDTH), step)
        found = [(chunk * weights).sum(1) for chunk in chunks if len(chunk)]
        found.append((words[lines * WIDTH :] * weights[: len(words) - lines * WIDTH]).sum()[None])
        return bytes(torch.cat(found).cpu().numpy().tobytes() + flat[whole:].cpu().numpy().tobytes())

    def _weights_on(self, device: torch.device) -> Tensor:
        if device not in self._weights:
            draws = torch.Generator().manual_seed(0)
            drawn = torch.randint(-(2**63), 2**63 - 1, (WIDTH,), dtype=torch.int64, generator=draws)
            self._weights[device] = (drawn | 1).to(device)
        return self._weights[device]
