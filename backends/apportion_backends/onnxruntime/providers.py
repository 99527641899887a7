"""Execution providers of ONNX Runtime, chosen by name, by device, or by what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.errors import BackendError, ModelError, listing, shown

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["PROVIDERS", "Provider", "choose_provider", "open_graph"]


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider.

    Attributes:
        name: the name that users type.
        full_name: its name in ONNX Runtime.
        device: type of device that it runs on.
        package: the package of ONNX Runtime that has it.
        options: options for the precision of fp32.
        bf16: options with which it computes in bf16; empty if it cannot.
        index: number of the device.
        dtype: what it computes with.
    """

    name: str
    full_name: str
    device: str
    package: str
    options: tuple[tuple[str, str], ...] = ()
    bf16: tuple[tuple[str, str], ...] = ()
    index: int = 0
    dtype: str = "float32"

    @property
    def identity(self) -> str:
        """Everything about the runtime that may change scores."""
        import onnxruntime as ort

        return f"onnxruntime {ort.__version__} {self.name} {self.dtype}"

    @property
    def where(self) -> str:
        """The device, as results show it."""
        return self.device if self.device == "cpu" else f"{self.device}:{self.index}"

    def settings(self) -> tuple[str, dict[str, str]]:
        """Name and options, as ONNX Runtime takes them."""
        number = {} if self.device == "cpu" else {"device_id": str(self.index)}
        return self.full_name, {**dict(self.options if self.dtype == "float32" else self.bf16), **number}


PROVIDERS = (
    # TF32 rounds products of fp32 numbers to 10 bits.
    Provider("cuda", "CUDAExecutionProvider", "cuda", "onnxruntime-gpu", (("use_tf32", "0"),)),
    Provider("tensorrt", "TensorrtExecutionProvider", "cuda", "onnxruntime-gpu"),
    Provider("directml", "DmlExecutionProvider", "dml", "onnxruntime-directml"),
    Provider(
        "openvino",
        "OpenVINOExecutionProvider",
        "cpu",
        "onnxruntime-openvino",
        (("precision", "FP32"),),
        (("load_config", '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'),),
    ),
    Provider("cpu", "CPUExecutionProvider", "cpu", "onnxruntime"),
)
EXTRAS = {"onnxruntime-gpu": "onnx-gpu", "onnxruntime-openvino": "onnx-openvino"}
"""Extras of apportion with which packages are installed."""
BY_AVAILABILITY = ("cuda", "directml", "cpu")
"""Providers that are used without being named; others compile a graph for minutes, or for each shape."""


def choose_provider(name: str | None, device: str | None, dtype: str | None = None) -> Provider:
    """The provider of this name, or the best that is installed for a device.

    Args:
        name: name of a provider; ``None`` for one that fits the device.
        device: type of device, and its number; ``None`` for any.
        dtype: what it computes with: ``"float32"`` (or ``None``), or ``"bfloat16"`` where it can.

    Raises:
        BackendError: there is no such provider, device or dtype, it is not installed, or they do not fit together.
    """
    import onnxruntime as ort

    installed = set(ort.get_available_providers())
    kind, index = _device(device)
    if name is not None:
        names = [provider.name for provider in PROVIDERS]
        chosen = next((p for p in PROVIDERS if name in (p.name, p.full_name)), None)
        if chosen is None:
            raise BackendError(f"No execution provider is called {shown(name)}. Available: {listing(names)}.")
        if kind is not None and kind != chosen.device:
            raise BackendError(
                f"The execution provider {chosen.name!r} runs on {chosen.device!r}, and not on device={device!r}. "
                "Leave one of them out."
            )
    else:
        usable = [p for p in PROVIDERS if p.name in BY_AVAILABILITY and kind in (None, p.device)]
        chosen = next((p for p in usable if p.full_name in installed), usable[0])
    if chosen.full_name not in installed:
        have = listing([p.name for p in PROVIDERS if p.full_name in installed])
        raise BackendError(
            f"The execution provider {chosen.name!r} is not in the installed ONNX Runtime {ort.__version__}, which has "
            f"{have}. Install {_package(chosen)} in place of onnxruntime, or use provider='cpu'."
        )
    return replace(chosen, index=index, dtype=_dtype(chosen, dtype))


def _dtype(provider: Provider, dtype: str | None) -> str:
    if dtype in (None, "float32"):
        return "float32"
    if dtype == "bfloat16" and provider.bf16:
        return dtype
    able = listing([one.name for one in PROVIDERS if one.bf16])
    raise BackendError(
        f"The backend 'onnxruntime' has no dtype {shown(dtype)} with the execution provider {provider.name!r}. "
        f"Available: 'float32', and 'bfloat16' with {able}. For 8-bit numbers, export with precision='int8'."
    )


def _package(provider: Provider) -> str:
    extra = EXTRAS.get(provider.package)
    return f"{provider.package} (pip install 'apportion[{extra}]')" if extra else provider.package


def _device(device: str | None) -> tuple[str | None, int]:
    if device is None:
        return None, 0
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in {provider.device for provider in PROVIDERS} or not (number == "" or number.isdecimal()):
        kinds = listing(sorted({provider.device for provider in PROVIDERS}))
        raise BackendError(
            f"ONNX Runtime has no device {shown(device)}. Available: {kinds}, and 'cuda:1' and the like."
        )
    return kind, int(number or 0)


def open_graph(
    graph: Path | bytes, provider: Provider, threads: int | None, *, folder: Path | None = None, name: str = ""
) -> ort.InferenceSession:
    """Load a graph.

    Args:
        graph: an ``.onnx`` file, or its bytes.
        provider: the execution provider; the CPU takes what it cannot run.
        threads: threads for one operation; ``None`` leaves the choice to ONNX Runtime.
        folder: folder of the external weights, if the graph is given as bytes.
        name: name of the file, for messages.

    Raises:
        BackendError: the provider cannot be used, as when a library of its GPU is missing.
        ModelError: the file is damaged, or has operators that this version does not know.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    # A thread that spins while it waits takes its core from others: two runs at once would take three times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised, too
    if threads is not None:
        options.intra_op_num_threads = threads
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    wanted: list[Any] = [provider.settings()]
    if provider.full_name != "CPUExecutionProvider":
        wanted.append("CPUExecutionProvider")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = ort.InferenceSession(source, options, providers=wanted)
    except Exception as error:  # ONNX Runtime has an exception class for each of its codes
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {name or source!r}: {_first_line(error)} The file is damaged "
            "or incomplete, or made for another version."
        ) from error
    if provider.full_name not in session.get_providers():
        raise BackendError(
            f"The execution provider {provider.name!r} could not be started (a library or a device is missing); ONNX "
            f"Runtime would use {listing(_names(session.get_providers()))}. Use provider='cpu', or install what it "
            "needs."
        )
    return session


def _names(full: Sequence[str]) -> list[str]:
    return [next((p.name for p in PROVIDERS if p.full_name == one), one) for one in full]


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{text[:200].rstrip('.')}."
