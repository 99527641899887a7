"""A file cache of what the probe found, so that the next start need not try the model again.

Only models that apportion loaded from files are cached: a user may have changed an object in ways that no fingerprint
shows. The key covers everything that the findings may depend on: configuration, weights and code of the model,
attention functions, versions, device, dtype, the machine's instruction set, and the code of the probe.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from apportion._version import __version__
from apportion.errors import CapabilityError
from apportion.files import cache_dir, write_atomically
from apportion_backends.torch.checksum import code_of, model_checksum
from apportion_backends.torch.probe import Traits, probe

__all__ = ["remembered_traits"]


def remembered_traits(model: PreTrainedModel) -> Traits:
    """The traits of a model that was just loaded from files, from the cache or by probing it.

    Raises:
        ModelError: the model is not causal, or gives numbers that are not finite.
    """
    try:
        path = cache_dir() / "traits" / f"{_key(model)}.json"
    except CapabilityError:  # hooks, or replaced functions: nobody can tell what the model is
        return probe(model)
    known = _read(path)
    if known is not None:
        return known
    found = probe(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(found)).encode())
    except OSError:
        pass  # an unwritable cache folder only costs time
    return found


def _read(path: Path) -> Traits | None:
    """Traits in a file; ``None`` if there is none, or it holds anything else."""
    try:
        data = json.loads(path.read_bytes())
        if set(data) != {field.name for field in fields(Traits)}:
            return None
        limit = data["packing_limit"]
        flags = [value for name, value in data.items() if name != "packing_limit"]
        if not all(isinstance(flag, bool) for flag in flags) or not (limit is None or type(limit) is int):
            return None
        return Traits(**data)
    except (OSError, ValueError, TypeError):
        return None


def _key(model: PreTrainedModel) -> str:
    """A hash of everything that decides what a probe finds."""
    device = model.device
    parts = (
        model_checksum(model),
        code_of(model),
        (__version__, torch.__version__, transformers.__version__),
        (str(model.dtype), device.type, torch.cuda.get_device_name(device) if device.type == "cuda" else ""),
        (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), torch.get_float32_matmul_precision()),
        sorted((name, value) for name, value in os.environ.items() if name.startswith(("ONEDNN_", "DNNL_", "MKL_"))),
        _code(),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


@functools.cache
def _code() -> str:
    """A hash of this package's own code."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
