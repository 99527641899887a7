"""Export of a model: trial, trace, head, precision, file, comparison with PyTorch, manifest."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from transformers import PreTrainedModel

from apportion._version import __version__
from apportion.benchmarking import texts
from apportion.errors import InputError, ModelError
from apportion.protocols.exports import Export
from apportion.protocols.model import ModelSpec
from apportion_backends.onnxruntime.export.calibration import second_moments
from apportion_backends.onnxruntime.export.comparing import compare, rows_to_compare
from apportion_backends.onnxruntime.export.fidelity import fidelity
from apportion_backends.onnxruntime.export.head import BIAS, PREFIX, add_head
from apportion_backends.onnxruntime.export.planes import products, round_weights, to_two_planes
from apportion_backends.onnxruntime.export.support import check_support, longest_certain
from apportion_backends.onnxruntime.export.trace import OPSET, traced
from apportion_backends.onnxruntime.export.weights import Weights
from apportion_backends.onnxruntime.manifest import (
    GRAPH,
    MANIFEST,
    WEIGHTS,
    Check,
    Head,
    Manifest,
    Sizes,
    check_precision,
    file_hash,
)
from apportion_backends.onnxruntime.packed_graph import PackedGraph
from apportion_backends.onnxruntime.providers import choose_provider
from apportion_backends.onnxruntime.tokenizer import vocabulary_hash
from apportion_backends.torch.head import Head as TorchHead
from apportion_backends.torch.loading import open_model
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.probe import probe
from apportion_backends.torch.session import TorchSession

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["export_model"]

TOLERANCE = 1e-3
"""Largest difference from PyTorch in nats for which an fp32 export is accepted. SmolLM2 differs by 3e-5."""
CALIBRATION = f"{texts.document()}\n\n{texts.FEW_SHOT}"
"""Text on which weights are rounded. It shares no sentence with the prompts on which fidelity is measured."""
CALIBRATION_TOKENS = 4096
WIDEST = 16384
"""Width of an activation above which weights are rounded one by one, because its moments would take gigabytes."""
CHECKED_ROWS = 3
"""Rows whose scores are kept in the manifest."""
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
INT8_NOTE = (
    "weights and activations are 8-bit numbers in two planes; on built-in prompts, attributions had a rank correlation "
    "of {spearman:.3f} with those in fp32 and the same top 3 in {top:.0%}, and a score changed by up to {jitter:.1g} "
    "nats with the division of rows into batches"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model in fp32 on the CPU, that may be traced, and what it is called."""

    session: TorchSession
    sizes: Sizes
    notes: tuple[str, ...]

    @property
    def model(self) -> PreTrainedModel:
        return self.session.model


def export_model(spec: ModelSpec, out: Path, precision: str, say: Say) -> Export:
    """Export a model to a folder that does not exist yet, or is empty.

    Args:
        spec: the model.
        out: the folder.
        precision: ``"fp32"`` or ``"int8"``.
        say: called with a sentence at the beginning of each step.

    Raises:
        ModelError: the model cannot be exported, or its graph gives other numbers.
        InputError: the precision is unknown, or the folder holds something.
    """
    check_precision(precision)
    _check_folder(out)
    say("Open the model in PyTorch")
    opened = _opened(spec)
    # Beside its place, so that it can be moved there at once, and is never seen half-written.
    with _workplace(out) as folder:
        manifest = _write(opened, folder, precision, say)
        opened.session.close()
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    return Export(out, precision, size, manifest.largest_difference, manifest.compared_rows, manifest.fidelity)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A new folder beside a place, which is deleted with all that is left in it.

    Raises:
        InputError: the place cannot be written to.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    except OSError as error:
        raise InputError(f"Nothing can be written to {str(out.parent)!r}: {error.strerror or error}.") from error
    with work as path:
        folder = Path(path) / "export"
        folder.mkdir()
        yield folder


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file. Name a folder for the export.")
    if out.is_dir() and any(out.iterdir()):
        what = "already holds an export" if (out / MANIFEST).exists() else "is not empty"
        raise InputError(f"The folder {str(out)!r} {what}. Name another folder, or delete it first.")


def _opened(spec: ModelSpec) -> _Model:
    """The model in fp32 on the CPU; a user's object is copied, because tracing changes its attention."""
    found = open_model(spec, "float32")
    if found.processor is not None:
        raise ModelError(
            f"{spec.source} reads pictures, and exports are of models of text. Score it with backend='torch'."
        )
    module = found.model if found.owned else copy.deepcopy(found.model)
    dtype = module.dtype
    try:
        module = module.to("cpu", torch.float32).eval()  # type: ignore[arg-type]
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            f"The model cannot be exported, because its weights cannot be turned into fp32 numbers: {error!s:.150}"
        ) from error
    traits = probe(module)
    if not traits.linear_head:
        raise ModelError(
            f"{type(module).__name__} cannot be exported: its logits are more than a product with its output "
            "embedding. Score it with backend='torch'."
        )
    if not traits.padding:
        raise ModelError(
            f"{type(module).__name__} cannot be exported: a row's numbers change with the longest row of its batch, as "
            "with rotary embeddings of the types 'dynamic' and 'longrope'. Score it with backend='torch'."
        )
    with scoring_mode(module):
        sizes = check_support(module)
    notes = found.notes
    if dtype != torch.float32:
        notes += (f"the model has {str(dtype).removeprefix('torch.')} weights, and its export computes in fp32",)
    return _Model(TorchSession(replace(found, model=module), traits, 512 * 2**20), sizes, notes)


def _write(opened: _Model, folder: Path, precision: str, say: Say) -> Manifest:
    """Write graph, weights, tokenizer and manifest, and compare the graph with PyTorch."""
    model, session = opened.model, opened.session
    say(f"Trace the graph with PyTorch's exporter: {opened.sizes.layers} layers, about 2 seconds each")
    graph, weights = traced(model, opened.sizes)
    head = TorchHead.of(model)
    weight = add_head(graph, weights, head)
    if precision == "int8":
        say("Round the weights to 8 bits")
        _quantise(graph, weights, opened)
    say("Write the files")
    offsets = weights.write(graph.graph, folder / WEIGHTS)
    onnx.save(graph, folder / GRAPH)
    _save_tokenizer(session.tokenizer, folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    info = session.info
    limits = [limit for limit in (info.context_length, longest_certain(model)) if limit is not None]
    assert info.vocabulary is not None
    manifest = Manifest(
        model=info.model,
        fingerprint=session.fingerprint(),
        precision=precision,
        sizes=opened.sizes,
        head=Head(offsets[weight], len(head.weight), offsets.get(BIAS), head.soft_cap),
        vocabulary=info.vocabulary,
        context_length=min(limits, default=None),
        weights_bytes=(folder / WEIGHTS).stat().st_size,
        end_ids=session.end_ids,
        tokenizer=vocabulary_hash(session.tokenizer),
        largest_difference=0.0,
        compared_rows=0,
        fidelity={},
        checks=(),
        files={},
        versions={"apportion": __version__, **{name: metadata.version(name) for name in PACKAGES}},
        opset=OPSET,
        inputs={one.name: _shape(one) for one in graph.graph.input},
        notes=opened.notes,
    )
    return _compared(manifest, opened, folder, precision, say)


def _quantise(graph: onnx.ModelProto, weights: Weights, opened: _Model) -> None:
    found = products(graph, weights, head=PREFIX)
    widths = {source: len(matrix) for source, matrix in found.values() if len(matrix) <= WIDEST}
    ids = tuple(opened.session.tokenizer(CALIBRATION)["input_ids"])[:CALIBRATION_TOKENS]
    round_weights(found, weights, second_moments(graph, weights, widths, ids, opened.sizes))
    to_two_planes(graph, weights, found)


def _compared(manifest: Manifest, opened: _Model, folder: Path, precision: str, say: Say) -> Manifest:
    """The manifest with what comparisons found.

    Raises:
        ModelError: the graph in fp32 gives other numbers than PyTorch.
    """
    say("Compare the graph with PyTorch")
    session = opened.session
    graph = PackedGraph(folder, manifest.sizes, manifest.head, choose_provider("cpu", None), None)
    rows = rows_to_compare(manifest.vocabulary, manifest.context_length)
    worst, scores = compare(graph, session, rows)
    if precision == "fp32" and not worst <= TOLERANCE:
        raise ModelError(
            f"The exported graph gives other numbers than PyTorch: up to {worst:.2g} nats apart. Score this model with "
            "backend='torch', and please report its architecture."
        )
    notes, measured = manifest.notes, {}
    if precision == "int8":
        say("Measure the fidelity of attributions")
        measured = fidelity(graph, session)
        notes += (INT8_NOTE.format(top=measured["same_top_3"], **measured),)
    checks = tuple(
        Check(row.prompt, row.target, tuple(scored))
        for row, scored in list(zip(rows, scores, strict=True))[:CHECKED_ROWS]
    )
    files = {path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in sorted(folder.iterdir())}
    manifest = replace(
        manifest,
        largest_difference=worst,
        compared_rows=len(rows),
        fidelity=measured,
        checks=checks,
        files=files,
        notes=notes,
    )
    manifest.write(folder)
    return manifest


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # slow tokenizers fail in many ways
        raise ModelError(f"The tokenizer ({type(tokenizer).__name__}) cannot be saved: {error!s:.150}") from error


def _shape(value: onnx.ValueInfoProto) -> str:
    return " ".join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
