"""The backend: folders with ONNX files, and names of models, which are exported once into the cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import BackendError, InputError, ModelError
from apportion.models.spec import is_url
from apportion.options import whole_number
from apportion.protocols.backend import Available, BackendInfo, Capability, Session, Unavailable
from apportion.protocols.exports import Export
from apportion.protocols.model import ModelSpec
from apportion_backends.onnxruntime.decoders.files import find_decoder, may_hold_decoder
from apportion_backends.onnxruntime.manifest import MANIFEST, Manifest, check_precision, read_manifest

if TYPE_CHECKING:
    from apportion_backends.onnxruntime.providers import Provider

__all__ = ["OnnxRuntimeBackend"]

INSTALL = "pip install 'apportion[onnx]'"
FOR_EXPORT = ("onnx", "onnxscript", "onnx_ir")
"""Packages that only an export needs."""


class OnnxRuntimeBackend:
    """Runs ONNX graphs; the numbers of the model that was exported, without its code."""

    info = BackendInfo(
        name="onnxruntime",
        devices=("cpu", "cuda", "dml"),
        capabilities=frozenset({Capability.LOG_PROBS, Capability.LOGITS, Capability.GENERATE, Capability.PREFIX_CACHE}),
        # It claims only what no other backend opens.
        priority=5,
        summary="ONNX files in ONNX Runtime, without PyTorch in the scoring path",
    )

    def availability(self) -> Available | Unavailable:
        """The backend is available if ONNX Runtime is installed."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Unavailable("onnxruntime is not installed", INSTALL)
        try:
            import onnxruntime as ort

            from apportion_backends.onnxruntime.providers import PROVIDERS

            there = set(ort.get_available_providers())
        except Exception as error:  # such as a missing system library
            return Unavailable(
                f"onnxruntime is installed but cannot be imported ({type(error).__name__}: {error})",
                f"Install it again: {INSTALL}",
            )
        names = [provider.name for provider in PROVIDERS if provider.full_name in there]
        return Available(f"onnxruntime {ort.__version__}, providers: {', '.join(names)}")

    def claims(self, spec: ModelSpec) -> bool:
        """Folders with an export or another ONNX file; other models are exported only if the backend is named."""
        return _is_export(spec) or (_names_files(spec) and may_hold_decoder(spec.source))

    def load(
        self,
        spec: ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        provider: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Session:
        """Open an export or a decoder of others, or export a model first if that was not done before.

        Args:
            spec: a folder with an export, a decoder of others (an ``.onnx`` file, or a folder with one), or a model
                that the torch backend opens too.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"dml"``; ``None`` for a GPU if ONNX Runtime has a provider
                for it.
            dtype: ``None`` or ``"float32"``, or ``"bfloat16"`` for an execution provider that computes in bf16.
            memory_budget: bytes that a batch may take; ``None`` for 512 MiB.
            provider: execution provider: ``"cpu"``, ``"cuda"``, ``"tensorrt"``, ``"directml"`` or ``"openvino"``.
            threads: threads of one operation; ``None`` for one for each core.
            precision: ``"fp32"`` or ``"int8"``: of a model that is exported into the cache (``None`` for fp32), or the
                one that a folder must have.

        Raises:
            BackendError: the device, dtype or provider is not available, or gives other numbers.
            ModelError: files are missing or damaged, or the model cannot be exported.
            InputError: an option has a value that it cannot have.
        """
        from apportion_backends.onnxruntime.providers import choose_provider

        if threads is not None:
            threads = whole_number("threads", threads, least=1)
        if precision is not None:
            check_precision(precision)
        chosen = choose_provider(provider, device, dtype)
        if _is_export(spec):
            return _open_export(spec, Path(spec.source).expanduser(), chosen, threads, memory_budget, precision)
        files = find_decoder(spec.source) if _names_files(spec) else None
        if files is not None:
            from apportion_backends.onnxruntime.decoders.opening import open_decoder

            if precision is not None:
                raise InputError(f"precision={precision!r} is of exports; {str(files.graph)!r} is run as it is.")
            return open_decoder(spec, files, chosen, threads, memory_budget)
        from apportion_backends.onnxruntime.cached_export import cached_export, discard

        folder = cached_export(spec, precision or "fp32")
        try:
            return _open_export(spec, folder, chosen, threads, memory_budget, precision)
        except ModelError as error:  # a file in the cache is damaged; nobody else wrote it
            discard(folder, str(error))
        folder = cached_export(spec, precision or "fp32")
        return _open_export(spec, folder, chosen, threads, memory_budget, precision)

    def export(self, spec: ModelSpec, out: Path, *, say: Callable[[str], None], precision: str = "fp32") -> Export:
        """Export a causal model of ``transformers``: graph, weights, tokenizer and manifest.

        Args:
            spec: the model.
            out: folder that is empty or does not exist.
            say: called with a sentence at the beginning of each step.
            precision: ``"fp32"`` or ``"int8"``.

        Raises:
            ModelError: the model cannot be exported, or its graph gives other numbers.
            BackendError: a package that exports need is not installed.
            InputError: the precision is unknown, or the folder holds something.
        """
        missing = [name for name in FOR_EXPORT if importlib.util.find_spec(name) is None]
        if missing:
            raise BackendError(f"To export a model, install {' and '.join(missing)}: {INSTALL}")
        from apportion_backends.onnxruntime.export.exporting import export_model

        return export_model(spec, out, precision, say)


def _names_files(spec: ModelSpec) -> bool:
    """True if a spec may name a file or folder: it is not an object or an address."""
    return spec.objects is None and not is_url(spec.source)


def _is_export(spec: ModelSpec) -> bool:
    """True if a spec names the folder of an export."""
    try:
        return _names_files(spec) and (Path(spec.source).expanduser() / MANIFEST).is_file()
    except OSError:  # no permission, or a name that no path can have
        return False


def _open_export(
    spec: ModelSpec,
    folder: Path,
    provider: Provider,
    threads: int | None,
    memory_budget: int | None,
    precision: str | None,
) -> Session:
    """Open an export whose files are the ones that its manifest describes."""
    from apportion_backends.onnxruntime.packed_graph import PackedGraph
    from apportion_backends.onnxruntime.session import ExportSession
    from apportion_backends.onnxruntime.tokenizer import tokenizer_of

    manifest = read_manifest(folder)
    if precision not in (None, manifest.precision):
        raise ModelError(
            f"The export {str(folder)!r} has the precision {manifest.precision!r}, not {precision!r}. Leave precision= "
            "out, or export the model again."
        )
    manifest.check_sizes(folder)
    # Hashing takes about as long as opening, and needs one core.
    with ThreadPoolExecutor(1, thread_name_prefix="apportion-hash") as pool:
        checked = pool.submit(manifest.check_hashes, folder)
        tokenizer = tokenizer_of(spec, folder)
        checked.result()
    _check_tokenizer(tokenizer, manifest, folder)
    graph = PackedGraph(folder, manifest.sizes, manifest.head, provider, threads)
    return ExportSession(graph, manifest, folder, tokenizer, provider, memory_budget)


def _check_tokenizer(tokenizer: object, manifest: Manifest, folder: Path) -> None:
    """Refuse a tokenizer whose ids mean other texts than those that the model was exported with."""
    from apportion_backends.onnxruntime.tokenizer import vocabulary_hash

    if vocabulary_hash(tokenizer) != manifest.tokenizer:  # type: ignore[arg-type]
        raise ModelError(
            f"The tokenizer ({type(tokenizer).__name__}, {len(tokenizer):,} tokens) is of another model: "  # type: ignore[arg-type]
            f"its vocabulary is not the one that {manifest.model!r} was exported with. Leave tokenizer= out: the "
            f"export {str(folder)!r} has its own."
        )
