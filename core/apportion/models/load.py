"""From what a user names to a loaded model and its tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from apportion.errors import BackendError, InputError, ModelError, listing, suggestion
from apportion.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DTYPES", "LoadedModel", "fingerprint", "load_model", "torch_dtype"]

ALIASES = ("smollm2",)
"""Names of models that apportion fetches by itself."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model and its tokenizer, ready for a backend.

    Attributes:
        model: a ``transformers`` model.
        tokenizer: of the model.
        name: what the user called it, for results.
        owned: apportion loaded it, so a backend may move or cast it; a user's objects stay as they are
            unless the user names a device or dtype.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    owned: bool

    @property
    def fingerprint(self) -> str:
        """A hash of the model as it is now (milliseconds): weights may change between runs."""
        return fingerprint(self.model)


def load_model(spec: object, *, dtype: str | None = None) -> LoadedModel:
    """Load a model.

    Args:
        spec: ``"smollm2"`` (fetched once), a folder or hub id that ``transformers`` can load, a ``.gguf``
            file, a ``LoadedModel``, or a ``(model, tokenizer)`` pair of objects.
        dtype: of the weights when apportion loads them; fp32 unless named.

    Raises:
        ModelError: it does not exist, cannot be read, or is no causal language model.
        InputError: ``spec`` is of another type.
    """
    if isinstance(spec, LoadedModel):
        return spec
    if isinstance(spec, tuple) and len(spec) == 2:
        return _from_objects(*spec)
    if not isinstance(spec, str | Path) or not str(spec):
        raise InputError(
            f"A model is a name, a path or a (model, tokenizer) pair, not {type(spec).__name__} {spec!r:.60}. "
            "Objects come in pairs: Explainer((model, tokenizer))."
        )
    name = str(spec)
    if name in ALIASES:
        from apportion.models.demo import demo_model_path

        return _from_pretrained(name, demo_model_path(), {}, dtype)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no file {path}.")
        return _from_pretrained(name, path.parent, {"gguf_file": path.name}, dtype)
    if path.exists():
        return _from_pretrained(name, path, {}, dtype)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"There is no folder or file {path}.")
    return _from_pretrained(name, name, {}, dtype)


def torch_dtype(name: str | torch.dtype) -> torch.dtype:
    """The dtype of a name; one that is a dtype already stays as it is.

    Raises:
        BackendError: not one of ``DTYPES``.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise BackendError(f"No dtype is called {name!r}. Available: {listing(DTYPES)}.")
    return DTYPES[name]


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of the configuration and of a sample of every weight.

    It tells models apart without reading gigabytes: 64 evenly spaced values of each tensor, its name,
    shape and dtype. A change that misses every sampled value is not seen.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    samples: dict[torch.device, list[torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{name}{tensor}".encode())  # quantised modules keep settings there
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        if flat.numel() and not (flat.is_meta or flat.is_quantized):
            sample = flat[:: max(1, flat.numel() // 64)][:64]
            samples.setdefault(flat.device, []).append(sample.double())
    # One transfer from each device.
    for parts in samples.values():
        digest.update(torch.cat(parts).cpu().numpy().tobytes())
    return digest.hexdigest()


def _from_objects(model: Any, tokenizer: Any) -> LoadedModel:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            "A pair of objects must be (model, tokenizer) of transformers, in this order; these are "
            f"({type(model).__name__}, {type(tokenizer).__name__})."
        )
    name = model.config.name_or_path or type(model).__name__
    return LoadedModel(model, tokenizer, name, owned=False)


def _from_pretrained(name: str, source: str | Path, options: dict[str, str], dtype: str | None) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = torch_dtype(dtype or "float32")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=weights, **options)
    except ImportError as error:
        raise ModelError(f"The model {name!r} needs a package that is missing: {_first_line(error)}") from error
    except Exception as error:  # damaged files fail in many ways
        again = f"Delete {source} to fetch it again. " if name in ALIASES else ""
        raise ModelError(
            f"The model {name!r} cannot be loaded: {_first_line(error)} {again}{suggestion(name, ALIASES)}"
            "Give a folder or hub id of a causal language model, a .gguf file, a (model, tokenizer) pair, or one of: "
            f"{listing(ALIASES)}."
        ) from error
    return LoadedModel(model.eval(), tokenizer, name, owned=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
