"""Quantisation of matrix products to int8, so that a row's scores do not depend on its neighbours.

Weights have one scale for each column. Activations have one for each row, and two planes: the row rounded to 8 bits,
and 8 bits of what rounding left. Both planes are multiplied by the same weights, so that activations have 16 bits in
effect. A single scale for all rows, as in ONNX Runtime's ``quantize_dynamic``, would make a row depend on the batch
that it is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from apportion_backends.onnxruntime.export.rounding import LEVELS, rounded
from apportion_backends.onnxruntime.export.weights import Weights

__all__ = ["products", "round_weights", "to_two_planes"]

DOMAIN = "com.microsoft"
Moments = Iterable[tuple[str, np.ndarray]]
LEAST = 1e-12
"""Smallest maximum of a row, so that rows of zeros can be divided by it."""


def products(model: onnx.ModelProto, weights: Weights, *, head: str) -> dict[str, tuple[str, np.ndarray]]:
    """The products of a graph with a weight ``[in, out]``: by their output, the activation that they read, and it.

    Args:
        model: a graph.
        weights: its weights.
        head: beginning of the names of nodes to leave out.
    """
    found = {}
    for node in model.graph.node:
        matrix = None if node.name.startswith(head) else _matrix(node, weights)
        if matrix is not None:
            found[node.output[0]] = node.input[0], matrix
    return found


def round_weights(found: Mapping[str, tuple[str, np.ndarray]], weights: Weights, moments: Moments) -> None:
    """Round the weights of products, and add the rounded ones to the weights.

    Args:
        found: the products.
        weights: the weights; changed in place.
        moments: second moments of the activations that are known, one after the other.
    """
    left = dict(found)
    for source, square in moments:
        for out, (name, matrix) in list(left.items()):
            if name == source:
                _add_rounded(out, matrix, square, weights)
                del left[out]
    for out, (_, matrix) in left.items():
        _add_rounded(out, matrix, None, weights)


def _add_rounded(out: str, matrix: np.ndarray, moments: np.ndarray | None, weights: Weights) -> None:
    numbers, scale = rounded(matrix, moments)
    weights.add(f"{out}.int8", numbers)
    weights.add(f"{out}.scale", scale)


def to_two_planes(model: onnx.ModelProto, weights: Weights, found: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """Replace products by products of 8-bit numbers.

    Args:
        model: a graph; changed in place.
        weights: its weights, with the rounded ones.
        found: the products.
    """
    weights.add("planes.scale", np.float32(1 / LEVELS))
    weights.add("planes.fine_scale", np.float32(1 / LEVELS / 254))
    weights.add("planes.zero", np.uint8(128))
    weights.add("planes.least", np.float32(LEAST))
    weights.add("planes.axis", np.array([-1]))
    nodes: list[onnx.NodeProto] = []
    split: set[str] = set()
    for node in model.graph.node:
        if node.output[0] not in found:
            nodes.append(node)
            continue
        source = node.input[0]
        if source not in split:
            nodes += _planes_of(source)
            split.add(source)
        nodes += _product(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _matrix(node: onnx.NodeProto, weights: Weights) -> np.ndarray | None:
    """The weight ``[in, out]`` of a product with a weight; ``None`` for any other node."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights.arrays:
        return None
    matrix = weights.arrays[node.input[1]]
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if settings.get("transA", 0) or settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0:
        return None
    return matrix.T if settings.get("transB", 0) else matrix


def _planes_of(source: str) -> Iterator[onnx.NodeProto]:
    """Nodes that round each row of an activation, and what rounding leaves."""
    name = f"{source}.planes"
    yield helper.make_node("Abs", [source], [f"{name}.abs"])
    yield helper.make_node("ReduceMax", [f"{name}.abs", "planes.axis"], [f"{name}.max"], keepdims=1)
    yield helper.make_node("Max", [f"{name}.max", "planes.least"], [f"{name}.size"])
    yield helper.make_node("Div", [source, f"{name}.size"], [f"{name}.unit"])
    yield helper.make_node("QuantizeLinear", [f"{name}.unit", "planes.scale", "planes.zero"], [f"{name}.coarse"])
    yield helper.make_node("DequantizeLinear", [f"{name}.coarse", "planes.scale", "planes.zero"], [f"{name}.near"])
    yield helper.make_node("Sub", [f"{name}.unit", f"{name}.near"], [f"{name}.left"])
    yield helper.make_node("QuantizeLinear", [f"{name}.left", "planes.fine_scale", "planes.zero"], [f"{name}.fine"])


def _product(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Nodes that multiply both planes by a weight, add the products, and undo the scale of the rows."""
    planes, out = f"{node.input[0]}.planes", node.output[0]
    for plane, step in (("coarse", "planes.scale"), ("fine", "planes.fine_scale")):
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{planes}.{plane}", f"{out}.int8", step, f"{out}.scale", "planes.zero"],
            [f"{out}.{plane}"],
            domain=DOMAIN,
        )
    yield helper.make_node("Add", [f"{out}.coarse", f"{out}.fine"], [f"{out}.sum"])
    biased = len(node.input) > 2
    product = f"{out}.product" if biased else out
    yield helper.make_node("Mul", [f"{out}.sum", f"{planes}.size"], [product])
    if biased:
        yield helper.make_node("Add", [product, node.input[2]], [out])
