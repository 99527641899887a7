"""Exports in the cache folder, for models that a user names without having exported them."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import hf_hub_download

from apportion._version import __version__
from apportion.errors import InputError, ModelError
from apportion.files import cache_dir, file_digest
from apportion.models.spec import files_of
from apportion.protocols.model import ModelSpec
from apportion_backends.onnxruntime.manifest import MANIFEST
from apportion_backends.onnxruntime.tokenizer import vocabulary_hash
from apportion_backends.own_code import code_hash

__all__ = ["cached_export", "discard"]

READ = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja", "*.py")
"""Files of a folder that decide what a model is."""


def cached_export(spec: ModelSpec, precision: str) -> Path:
    """The folder of a model's export; it is made now if it is not in the cache.

    Args:
        spec: a model that is named, not passed as an object.
        precision: precision of the export.

    Returns:
        The folder.

    Raises:
        ModelError: the model cannot be found or exported.
        InputError: the model is an object.
    """
    if spec.objects is not None:
        raise InputError(
            "The backend 'onnxruntime' opens folders and names, and not model objects, which may have changed since "
            "they were exported. Export the model first: apportion.export((model, tokenizer), 'folder')."
        )
    source, options = files_of(spec.source)
    folder = cache_dir() / "onnx" / f"{_key(spec, source, options)}-{precision}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two processes at once would export twice.
    lock = Path(f"{folder}.lock")
    with FileLock(lock):
        if not (folder / MANIFEST).is_file():
            from apportion_backends.onnxruntime.backend import OnnxRuntimeBackend

            try:
                with _telling(spec.source, folder) as say:
                    OnnxRuntimeBackend().export(spec, folder, say=say, precision=precision)
            except ModelError:
                lock.unlink(missing_ok=True)
                raise
    return folder


def discard(folder: Path, why: str) -> None:
    """Delete an export from the cache, with a warning that says why."""
    warnings.warn(f"The export in the cache is made again: {why}", RuntimeWarning, stacklevel=2)
    shutil.rmtree(folder, ignore_errors=True)


def _key(spec: ModelSpec, source: str, options: Mapping[str, Any]) -> str:
    """A hash of everything that decides what an export of a model is."""
    own = Path(__file__).parent
    code = code_hash(own, own / "export", own.parent)
    parts = (code, __version__, _content(source, options, spec), spec.allow_missing, _tokenizer(spec.tokenizer))
    return hashlib.blake2b(repr((*parts, sorted(spec.config.items()))).encode(), digest_size=16).hexdigest()


def _content(source: str, options: Mapping[str, Any], spec: ModelSpec) -> object:
    """The hashes of a model's files, or the commit of a model of the hub."""
    folder = Path(source)
    try:
        if "gguf_file" in options:
            return file_digest(folder / options["gguf_file"])
        if folder.is_dir():
            return _hashes(folder)
    except OSError as error:
        raise ModelError(f"The files of {spec.source!r} cannot be read: {error.strerror or error}.") from error
    try:
        # The folder that it is downloaded to has the name of the commit.
        settings: dict[str, Any] = {**options, "revision": spec.config.get("revision")}
        file: str = hf_hub_download(source, "config.json", **settings)
    except Exception as error:  # whatever the client raises
        raise ModelError(f"The model {spec.source!r} cannot be found: {' '.join(str(error).split()):.200}") from error
    return source, Path(file).parent.name


def _hashes(folder: Path) -> list[tuple[str, str]]:
    return [(path.name, file_digest(path)) for pattern in READ for path in sorted(folder.glob(pattern))]


def _tokenizer(tokenizer: object) -> object:
    if tokenizer is None:
        return None
    if isinstance(tokenizer, str | Path):
        folder = Path(tokenizer).expanduser()
        return _hashes(folder) if folder.is_dir() else str(tokenizer)
    return vocabulary_hash(tokenizer)  # type: ignore[arg-type]


@contextmanager
def _telling(name: str, folder: Path) -> Iterator[Callable[[str], None]]:
    """Lines on stderr about an export that nobody asked for in so many words."""
    from rich.console import Console

    console = Console(stderr=True)
    console.print(f"Exporting {name} to ONNX once, into {folder} …", highlight=False, markup=False)
    yield lambda step: console.print(f"  {step} …", highlight=False, markup=False)
    console.print("The export is ready.")
