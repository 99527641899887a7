"""Second moments of what the matrix products of a graph read, on a built-in text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from apportion.protocols.row import Row
from apportion_backends.onnxruntime.export.weights import Weights
from apportion_backends.onnxruntime.manifest import GRAPH, WEIGHTS, Head, Sizes
from apportion_backends.onnxruntime.packed_graph import PackedGraph
from apportion_backends.onnxruntime.providers import choose_provider
from apportion_backends.packing import lay_out

__all__ = ["second_moments"]

ROW = 256
"""Tokens that are read at once."""
HELD_BYTES = 2**30
"""Moments that are in memory at once; for more, the text is read again."""


def second_moments(
    model: onnx.ModelProto, weights: Weights, sources: Mapping[str, int], ids: Sequence[int], sizes: Sizes
) -> Iterator[tuple[str, np.ndarray]]:
    """Sums of ``x.T @ x`` over all tokens of a text.

    Args:
        model: the graph in fp32; not changed.
        weights: its weights.
        sources: names of the activations, with their widths.
        ids: the tokens.
        sizes: sizes of the model.
    """
    with tempfile.TemporaryDirectory(prefix="apportion-") as work:
        folder = Path(work)
        plain = onnx.ModelProto()
        plain.CopyFrom(model)
        weights.write(plain.graph, folder / WEIGHTS)
        for part in _parts(sources):
            watched = onnx.ModelProto()
            watched.CopyFrom(plain)
            for name in part:
                _watch(watched.graph, name, sources[name])
            onnx.save(watched, folder / GRAPH)
            yield from _summed(folder, part, ids, sizes).items()


def _parts(sources: Mapping[str, int]) -> Iterator[list[str]]:
    """Sources whose moments fit into memory."""
    part: list[str] = []
    held = 0
    for name, width in sources.items():
        size = 4 * width**2
        if part and held + size > HELD_BYTES:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def _watch(graph: onnx.GraphProto, name: str, width: int) -> None:
    """Make the product of an activation with itself an output."""
    shape = helper.make_tensor(f"{name}.flat_shape", TensorProto.INT64, [2], [-1, width])
    graph.initializer.append(shape)
    graph.node.append(helper.make_node("Reshape", [name, shape.name], [f"{name}.flat"]))
    graph.node.append(helper.make_node("Gemm", [f"{name}.flat", f"{name}.flat"], [f"{name}.moments"], transA=1))
    graph.output.append(helper.make_tensor_value_info(f"{name}.moments", TensorProto.FLOAT, [width, width]))


def _summed(folder: Path, names: Sequence[str], ids: Sequence[int], sizes: Sizes) -> dict[str, np.ndarray]:
    graph = PackedGraph(folder, sizes, Head(0, 0), choose_provider("cpu", None), None)
    outputs = [f"{name}.moments" for name in names]
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(ids), ROW):
        row = tuple(ids[start : start + ROW])
        out = graph.run(lay_out([Row(row, row[-1:])], piece=ROW), outputs=outputs)
        for name in names:
            moments = out[f"{name}.moments"].numpy()
            found[name] = found[name] + moments if name in found else moments
    return found
