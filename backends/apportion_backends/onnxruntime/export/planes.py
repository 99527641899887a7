"""Quantisation of matrix products to int8, so that a row's scores do not depend on its neighbours.

Weights have one scale for each column. Activations have one for each row, and two planes: the row rounded to 8 bits, and
8 bits of what rounding left. Both planes are multiplied by the same weights, so that activations have 16 bits in effect.
A single scale for all rows, as in ONNX Runtime's ``quantize_dynamic``, would make a row depend on the batch that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from apportion_backends.onnxruntime.export.weights import Weights

__all__ = ["to_two_planes"]

LEVELS = 127
"""Largest magnitude of a rounded number."""
DOMAIN = "com.microsoft"
LEAST = 1e-12
"""Smallest maximum of a row or column, so that rows of zeros can be divided by it."""


def to_two_planes(model: onnx.ModelProto, weights: Weights, *, head: str) -> int:
    """Replace the products of the decoder by products of 8-bit numbers.

    Args:
        model: a graph; changed in place.
        weights: its weights; those that are quantised replace the others.
        head: beginning of the names of nodes that stay as they are.

    Returns:
        The number of products that were replaced.
    """
    graph = model.graph
    weights.add("planes.scale", np.float32(1 / LEVELS))
    weights.add("planes.fine_scale", np.float32(1 / LEVELS / 254))
    weights.add("planes.zero", np.uint8(128))
    weights.add("planes.least", np.float32(LEAST))
    weights.add("planes.axis", np.array([-1]))
    nodes: list[onnx.NodeProto] = []
    split: set[str] = set()
    replaced = 0
    for node in graph.node:
        matrix = None if node.name.startswith(head) else _matrix(node, weights)
        if matrix is None:
            nodes.append(node)
            continue
        source = node.input[0]
        if source not in split:
            nodes += _planes_of(source)
            split.add(source)
        nodes += _product(node, matrix, weights)
        replaced += 1
    del graph.node[:]
    graph.node.extend(nodes)
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return replaced


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


def _product(node: onnx.NodeProto, matrix: np.ndarray, weights: Weights) -> Iterator[onnx.NodeProto]:
    """Nodes that multiply both planes by a weight, add the products, and undo the scale of the rows."""
    planes, weight, out = f"{node.input[0]}.planes", f"{node.input[1]}.int8", node.output[0]
    scale = np.maximum(np.abs(matrix).max(0), LEAST) / LEVELS
    weights.add(weight, np.rint(matrix / scale).astype(np.int8))
    weights.add(f"{weight}.scale", scale.astype(np.float32))
    for plane, step in (("coarse", "planes.scale"), ("fine", "planes.fine_scale")):
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{planes}.{plane}", weight, step, f"{weight}.scale", "planes.zero"],
            [f"{out}.{plane}"],
            domain=DOMAIN,
        )
    yield helper.make_node("Add", [f"{out}.coarse", f"{out}.fine"], [f"{out}.sum"])
    biased = len(node.input) > 2
    product = f"{out}.product" if biased else out
    yield helper.make_node("Mul", [f"{out}.sum", f"{planes}.size"], [product])
    if biased:
        yield helper.make_node("Add", [product, node.input[2]], [out])
