"""The backend itself: whether Triton can run here, and loading a model into a session."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import TYPE_CHECKING

import torch

from apportion.backend import Available, BackendInfo, Capability, Unavailable
from apportion.errors import BackendError
from apportion.models import LoadedModel
from apportion_backends.torch.backend import TorchBackend

if TYPE_CHECKING:
    from apportion_backends.triton.session import TritonSession

__all__ = ["TritonBackend"]


class TritonBackend:
    """Scores with the torch backend, and fuses what costs memory and precision on a GPU."""

    @property
    def info(self) -> BackendInfo:
        """What it is; ``backend="auto"`` prefers it on a GPU, and never takes the interpreter."""
        return BackendInfo(
            name="triton",
            devices=("cuda",),
            capabilities=frozenset(
                {Capability.LOG_PROBS, Capability.LOGITS, Capability.GENERATE, Capability.PREFIX_CACHE}
            ),
            priority=10 if torch.cuda.is_available() else -10,
            summary="fused kernels for the head and for shared prefixes, on the torch backend",
        )

    def availability(self) -> Available | Unavailable:
        """Available with a CUDA device, or where kernels are interpreted."""
        if importlib.util.find_spec("triton") is None:
            return Unavailable("triton is not installed", "pip install 'apportion[triton]'; it needs Linux")
        version = metadata.version("triton")
        if torch.cuda.is_available():
            return Available(f"triton {version}, {torch.cuda.get_device_name()}")
        from apportion_backends.triton.runtime import interpreting

        if interpreting():
            return Available(f"triton {version}, interpreted (slow; for tests)")
        return Unavailable(
            f"this PyTorch ({torch.__version__}) finds no CUDA device",
            "Use a machine with an NVIDIA GPU and a CUDA build of torch, or backend='torch'; to try the kernels on a "
            "CPU, slowly, set TRITON_INTERPRET=1 before Python starts",
        )

    def load(
        self,
        model: LoadedModel,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        kernels: str = "auto",
    ) -> TritonSession:
        """Load the model as the torch backend does, and try the kernels on it.

        Args:
            model: moved in place when a device is named.
            device: ``None`` keeps a user's model where it is.
            dtype: ``None`` keeps the weights' dtype. A user's model is copied before it is cast.
            memory_budget: bytes a batch may take; ``None``: half of the GPU's free memory.
            kernels: ``"auto"``, where they pay; ``"always"``, wherever they give the right numbers.

        Raises:
            BackendError: no such device or dtype here, or the model is on a CPU and kernels are not interpreted.
            ModelError: the model is not causal.
        """
        # triton is imported here, so that listing backends stays quick.
        from apportion_backends.triton.costs import Costs
        from apportion_backends.triton.runtime import interpreting
        from apportion_backends.triton.session import TritonSession
        from apportion_backends.triton.trial import try_kernels

        if kernels not in ("auto", "always"):
            raise BackendError(f"The option kernels={kernels!r} of the backend 'triton' must be 'auto' or 'always'.")
        # Before the model is loaded and tried: `backend="auto"` goes on to the next one.
        owned = model.owned and torch.cuda.is_available()
        where = device or ("cuda" if owned else str(model.model.device))
        if not (where.startswith("cuda") or interpreting()):
            raise BackendError(f"Triton kernels cannot run on {where!r}. Name device='cuda', or use backend='torch'.")
        inner = TorchBackend().load(model, device=device, dtype=dtype, memory_budget=memory_budget)
        costs = Costs(inner.model.dtype, always=kernels == "always")
        return TritonSession(inner, costs, try_kernels(inner, costs))
