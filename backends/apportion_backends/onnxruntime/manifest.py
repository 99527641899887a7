"""The manifest of an export: what was exported, by which versions, and the hash of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from apportion.errors import InputError, ModelError, shown
from apportion.results.seal import SEAL, intact, seal_of

__all__ = [
    "GRAPH",
    "MANIFEST",
    "WEIGHTS",
    "Check",
    "Head",
    "Manifest",
    "Sizes",
    "check_precision",
    "file_hash",
    "read_manifest",
]

MANIFEST = "apportion-export.json"
GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
PRECISIONS = ("fp32", "int8")
SLICE = 8192
"""Columns of the vocabulary that the graph's head computes at once."""
FORMAT = 1
"""Version of the manifest and of the inputs of the graph."""
AGAIN = "Export the model again with `apportion export`."


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model, from which the memory of a row follows.

    Attributes:
        layers: number of layers.
        heads: number of query heads.
        key: number of key heads, and their size.
        value: the same of values.
        hidden: width of hidden states.
        inner: width of the widest layer between them.
    """

    layers: int
    heads: int
    key: tuple[int, int]
    value: tuple[int, int]
    hidden: int
    inner: int

    @property
    def past(self) -> dict[str, tuple[int, int]]:
        """Number and size of the heads of what is kept, by the graph's inputs."""
        return {"keys": self.key, "values": self.value}


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer in the file of weights, in fp32: ``[vocabulary, hidden]``.

    Attributes:
        offset: first byte of its weight.
        rows: number of token ids that it can predict.
        bias: first byte of its bias; ``None`` if it has none.
        soft_cap: ``c`` of ``c · tanh(z / c)``; ``None`` if logits are not capped.
    """

    offset: int
    rows: int
    bias: int | None = None
    soft_cap: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A row and the log-probabilities that the graph gave it when it was exported; every session repeats it."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of an export.

    Attributes:
        model: name of the model, shown in results.
        fingerprint: fingerprint of the model that was exported.
        precision: ``"fp32"`` or ``"int8"``.
        sizes: sizes of the model.
        head: its output layer.
        vocabulary: number of token ids that can be both read and predicted.
        context_length: maximum number of tokens; ``None`` if there is no limit.
        weights_bytes: memory of the weights.
        end_ids: tokens with which the model ends a generation.
        tokenizer: hash of the tokenizer's vocabulary.
        largest_difference: largest difference from PyTorch in nats, over the rows that were compared.
        compared_rows: number of these rows.
        fidelity: agreement of attributions with those in fp32; empty for fp32.
        checks: rows whose scores every session compares.
        files: size and SHA-256 of each file.
        versions: versions of the packages that exported it.
        opset: ONNX opset of the graph.
        inputs: inputs of the graph, with their shapes.
        notes: sentences for results.
    """

    model: str
    fingerprint: str
    precision: str
    sizes: Sizes
    head: Head
    vocabulary: int
    context_length: int | None
    weights_bytes: int
    end_ids: tuple[int, ...]
    tokenizer: str
    largest_difference: float
    compared_rows: int
    fidelity: Mapping[str, float]
    checks: tuple[Check, ...]
    files: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    opset: int
    inputs: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())

    @property
    def digest(self) -> str:
        """A hash of everything that decides scores."""
        parts = (self.precision, sorted((name, file["sha256"]) for name, file in self.files.items()))
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        data = {"format": FORMAT, **asdict(self)}
        data[SEAL] = seal_of(data)
        (folder / MANIFEST).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def check_sizes(self, folder: Path) -> None:
        """Check that every file is there, and has its size.

        Raises:
            ModelError: a file is missing, or has another size.
        """
        for name, known in self.files.items():
            path = folder / name
            if not path.is_file():
                raise ModelError(f"The export {str(folder)!r} lacks its file {name}. {AGAIN}")
            size = path.stat().st_size
            if size != known["bytes"]:
                raise ModelError(
                    f"The file {name} of the export {str(folder)!r} has {size:,} bytes instead of {known['bytes']:,}: "
                    f"it is damaged, incomplete, or of another export. {AGAIN}"
                )

    def check_hashes(self, folder: Path) -> None:
        """Compare the content of every file with its hash.

        Raises:
            ModelError: a file is not the one that was exported.
        """
        for name, known in self.files.items():
            if file_hash(folder / name) != known["sha256"]:
                raise ModelError(
                    f"The file {name} of the export {str(folder)!r} is not the one that its manifest describes: its "
                    f"hash is another. {AGAIN}"
                )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an export.

    Raises:
        ModelError: it cannot be read, or is of another version of apportion.
    """
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_bytes())
        whole = intact(data)
        version = data.pop("format")
        data.pop(SEAL, None)
    except OSError as error:
        raise ModelError(f"The manifest {str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"The manifest {str(path)!r} is damaged. {AGAIN}") from error
    if version != FORMAT:
        raise ModelError(
            f"The export {str(folder)!r} has the format {version!r}, and this version of apportion reads {FORMAT}. "
            f"{AGAIN}"
        )
    if not whole:
        raise ModelError(
            f"The manifest {str(path)!r} is not the one that was written with the export: it was changed, or is "
            f"damaged. {AGAIN}"
        )
    try:
        return _manifest(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"The manifest {str(path)!r} is damaged: {error!s:.80}. {AGAIN}") from error


def _manifest(data: dict[str, Any]) -> Manifest:
    unknown = set(data) ^ {one.name for one in fields(Manifest)}
    if unknown:
        raise ValueError(f"it should have other entries: {sorted(unknown)}")
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["sizes"].items()
    }
    return Manifest(
        **{
            **data,
            "sizes": Sizes(**sizes),
            "head": Head(**data["head"]),
            "end_ids": tuple(data["end_ids"]),
            "notes": tuple(data["notes"]),
            "checks": tuple(_check(one) for one in data["checks"]),
            "files": {str(name): {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in _files(data)},
        }
    )


def _files(data: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    files = list(data["files"].items())
    names = {name for name, _ in files}
    if not {GRAPH, WEIGHTS} <= names or any(Path(name).name != name for name in names):
        raise ValueError("its list of files")
    return files


def _check(one: Mapping[str, Any]) -> Check:
    check = Check(*(tuple(one[name]) for name in ("prompt", "target", "log_probs")))
    if not check.prompt or not len(check.target) == len(check.log_probs) > 0:
        raise ValueError("its check rows")
    return check


def check_precision(precision: object) -> None:
    """Check the name of a precision.

    Raises:
        InputError: it is unknown.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={shown(precision)} must be 'fp32' or 'int8'.")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
