"""The backend itself: devices, dtypes, and loading a model into a session."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING

import torch

from apportion.errors import BackendError, shown
from apportion.models.dtypes import torch_dtype
from apportion.models.quiet import quiet_refusal
from apportion.models.spec import is_url
from apportion.protocols.backend import Available, BackendInfo, Capability, Unavailable
from apportion.protocols.model import ModelSpec

if TYPE_CHECKING:
    from apportion_backends.torch.model_session import ModelSession

__all__ = ["TorchBackend"]

CPU_MEMORY_BUDGET = 512 * 2**20
"""Bytes that a batch may take on the CPU; larger batches are no faster there."""


class TorchBackend:
    """Scores with the model's own PyTorch code."""

    info = BackendInfo(
        name="torch",
        devices=("cpu", "cuda"),
        capabilities=frozenset(
            {
                Capability.LOG_PROBS,
                Capability.LOGITS,
                Capability.GENERATE,
                Capability.GRADIENTS,
                Capability.HIDDEN_STATES,
                Capability.ATTENTIONS,
                Capability.PREFIX_CACHE,
                Capability.IMAGES,
            }
        ),
        priority=0,
        summary="eager PyTorch; the reference for every other backend",
    )

    def availability(self) -> Available | Unavailable:
        """The backend is available if transformers is installed."""
        if importlib.util.find_spec("transformers") is None:
            return Unavailable("transformers is not installed", "pip install transformers")
        devices = "CPU and CUDA" if torch.cuda.is_available() else "CPU; no CUDA device"
        return Available(f"torch {metadata.version('torch')}, {devices}")

    def claims(self, spec: ModelSpec) -> bool:
        """Names, folders and files, and pairs of transformers objects."""
        if spec.objects is None:
            return not is_url(spec.source)
        from apportion_backends.torch.loading import is_transformers_pair

        return is_transformers_pair(spec)

    @quiet_refusal()
    def load(
        self,
        spec: ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        compile: bool = False,
    ) -> ModelSession:
        """Open the model, move it to the device, and find out which batches it allows.

        Args:
            spec: the model; an object is moved in place if a device is named.
            device: ``None`` leaves a user's model where it is, and puts one that apportion loads on the GPU if
                there is one.
            dtype: ``None`` keeps the weights' dtype. A user's model is copied before it is cast.
            memory_budget: bytes that a batch may take; ``None`` for 512 MiB on the CPU, or half of the free memory
                of a GPU.
            compile: fuse the operations between matrix products (``torch.compile``). The first batches take a
                minute or more; the gain depends on the machine.

        Raises:
            BackendError: the device or dtype does not exist here.
            ModelError: the model cannot be loaded, its files lack weights, or it is neither a causal nor an
                encoder–decoder model, so that a target cannot be scored in one pass.
            InputError: the objects are not those of transformers.
        """
        # transformers is imported here, so that listing backends stays quick.
        from apportion_backends.torch.encoder_decoder import is_encoder_decoder
        from apportion_backends.torch.inputs import input_device
        from apportion_backends.torch.loading import open_model
        from apportion_backends.torch.pictures.session import ImageTextSession
        from apportion_backends.torch.remembered import remembered_traits, traits_of_object
        from apportion_backends.torch.seq2seq import Seq2SeqSession
        from apportion_backends.torch.session import TorchSession

        if not isinstance(compile, bool):
            raise BackendError(f"The option compile={compile!r} of the backend 'torch' must be True or False.")
        model = open_model(spec, dtype, encoder_decoders=True)
        module = model.model
        if device is None and model.owned and torch.cuda.is_available():
            device = "cuda"
        try:
            if device is not None:
                module.to(_device(device))  # type: ignore[arg-type]
            if dtype is not None and torch_dtype(dtype) != module.dtype:
                module = module if model.owned else copy.deepcopy(module)
                module.to(torch_dtype(dtype))  # type: ignore[arg-type]
        except (RuntimeError, ValueError, TypeError) as error:
            # Quantised, dispatched and offloaded models refuse to be moved or cast; some hooks cannot be copied.
            raise BackendError(
                f"The model cannot be moved to device={shown(device)}, dtype={shown(dtype)}: {error!s:.200} "
                "Leave them out to use it where and as it is."
            ) from error
        if memory_budget is None:
            memory_budget = _default_memory_budget(input_device(module))
        opened = replace(model, model=module)
        if opened.processor is not None:
            if compile:
                raise BackendError("compile=True fuses the layers of models of text only. Leave it out.")
            return ImageTextSession(opened, memory_budget)
        traits = remembered_traits(module) if model.owned else traits_of_object(module)
        if not is_encoder_decoder(module):
            return TorchSession(opened, traits, memory_budget, compiled=compile)
        if compile:
            raise BackendError(
                "compile=True fuses the layers of causal models only, and this is an encoder–decoder model. Leave it "
                "out."
            )
        return Seq2SeqSession(opened, traits, memory_budget)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackendError(f"No device is called {name!r}. Use 'cpu', 'cuda' or 'cuda:1'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"The device {name!r} is not available: this PyTorch ({torch.__version__}) finds no CUDA device. "
            "Use device='cpu', or install a CUDA build of torch on a machine with a GPU."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"There is no device {name!r}; this machine has {torch.cuda.device_count()} CUDA devices.")
    if device.type not in ("cpu", "cuda"):
        raise BackendError(f"The torch backend runs on 'cpu' and 'cuda', not on {name!r}.")
    return device


def _default_memory_budget(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_MEMORY_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return free // 2
