"""The backend: a check that Triton can run here, and loading a model into a session."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

from apportion.errors import BackendError
from apportion.protocols.backend import Available, BackendInfo, Capability, Unavailable
from apportion.protocols.model import ModelSpec
from apportion_backends.torch.backend import TorchBackend

if TYPE_CHECKING:
    from apportion_backends.triton.session import TritonSession

__all__ = ["TritonBackend"]


class TritonBackend:
    """The torch backend, with the operations fused that cost memory and precision on a GPU."""

    @property
    def info(self) -> BackendInfo:
        """Name and capabilities; ``backend="auto"`` prefers it on a GPU, and never uses the interpreter."""
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
        """Available with a CUDA device, or in Triton's interpreter."""
        if importlib.util.find_spec("triton") is None:
            return Unavailable("triton is not installed", "pip install 'apportion[triton]'; it needs Linux")
        from apportion_backends.triton.runtime import interpreting

        if not torch.cuda.is_available() and not interpreting():
            return Unavailable(
                f"this PyTorch ({torch.__version__}) finds no CUDA device",
                "Use a machine with an NVIDIA GPU and a CUDA build of torch, or backend='torch'; to try the kernels on "
                "a CPU (slow), set TRITON_INTERPRET=1 before Python starts",
            )
        try:
            import triton
        except Exception as error:  # such as a missing system library, or a version that does not match PyTorch
            return Unavailable(
                f"triton is installed but cannot be imported ({type(error).__name__}: {error})",
                f"Install the version that PyTorch {torch.__version__} requires",
            )
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "interpreted (slow, for tests)"
        return Available(f"triton {triton.__version__}, {where}")

    def claims(self, spec: ModelSpec) -> bool:
        """Whatever the torch backend claims."""
        return TorchBackend().claims(spec)

    def load(
        self,
        spec: ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        kernels: str = "auto",
    ) -> TritonSession:
        """Load the model as the torch backend does, then try the kernels on it.

        Args:
            spec: the model; an object is moved in place if a device is named.
            device: ``None`` leaves a user's model where it is.
            dtype: ``None`` keeps the weights' dtype. A user's model is copied before it is cast.
            memory_budget: bytes that a batch may take; ``None`` for half of the GPU's free memory.
            kernels: ``"auto"`` uses them where they are faster; ``"always"``, wherever they give the right numbers.

        Raises:
            BackendError: the device or dtype does not exist here, ``kernels`` is neither of the two, the model is on a
                CPU and kernels are not interpreted, or it is an encoder–decoder model or reads pictures.
            ModelError: the model is not causal.
        """
        # Imported here, so that listing backends stays fast.
        from apportion_backends.torch.loading import holds_encoder_decoder, holds_pictures
        from apportion_backends.torch.session import TorchSession
        from apportion_backends.triton.runtime import interpreting
        from apportion_backends.triton.session import TritonSession

        if kernels not in ("auto", "always"):
            raise BackendError(f"The option kernels={kernels!r} of the backend 'triton' must be 'auto' or 'always'.")
        # Checked before the model is loaded, so that backend="auto" moves on quickly.
        place = "cuda" if torch.cuda.is_available() else "cpu"
        where = device or str(getattr(spec.objects, "device", place))
        if not (where.startswith("cuda") or interpreting()):
            raise BackendError(f"Triton kernels cannot run on {where!r}. Name device='cuda', or use backend='torch'.")
        if holds_encoder_decoder(spec):
            raise BackendError(
                "Triton kernels are for causal models, and this is an encoder–decoder model. Use backend='torch'."
            )
        if holds_pictures(spec):
            raise BackendError(
                "Triton kernels are for models of text, and this one is opened with a processor of pictures. Use "
                "backend='torch'."
            )
        inner = TorchBackend().load(spec, device=device, dtype=dtype, memory_budget=memory_budget)
        assert isinstance(inner, TorchSession)
        return TritonSession(inner, always=kernels == "always")
