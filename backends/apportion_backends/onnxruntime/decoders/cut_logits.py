"""Surgery on a decoder: its head reads only the positions that are scored, so that [B, S, V] never exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apportion_backends.onnxruntime.decoders.signature import ROWS

if TYPE_CHECKING:
    import onnx

__all__ = ["operators", "with_cut_logits"]

AFTER = ("Cast", "Add", "Mul", "Div", "Tanh", "Identity")
"""Operators between the head's product and the logits that work on every number by itself."""
HEADS = ("MatMul", "FusedMatMul", "MatMulNBits")
FIXED = ("Constant", "DequantizeLinear", "Transpose", "Cast")
"""Operators between a weight in the file and the product that reads it."""
LARGEST_GRAPH = 2**30
"""Bytes of a file whose graph is read for the surgery; weights of larger ones should lie outside."""


def with_cut_logits(path: Path) -> bytes | None:
    """The graph with the further input ``apportion_rows``; ``None`` if its head is not understood.

    ``logits`` then has the shape ``[1, R, V]``: those of the rows and positions ``[R, 2]`` in that input.
    """
    model = _load(path)
    head = None if model is None else _head_of(model.graph)
    if model is None or head is None:
        return None
    from onnx import TensorProto, helper

    states = head.input[0]
    picked, whole = f"{ROWS}.states", f"{ROWS}.batch"
    axes = helper.make_tensor(f"{ROWS}.axes", TensorProto.INT64, [1], [0])
    model.graph.initializer.append(axes)
    pick = helper.make_node("GatherND", [states, ROWS], [picked])
    lift = helper.make_node("Unsqueeze", [picked, axes.name], [whole])
    head.input[0] = whole
    place = next(i for i, node in enumerate(model.graph.node) if node is head or node == head)
    model.graph.node.insert(place, pick)
    model.graph.node.insert(place + 1, lift)
    model.graph.input.append(helper.make_tensor_value_info(ROWS, TensorProto.INT64, ["R", 2]))
    for output in model.graph.output:
        if output.name == "logits":
            output.type.tensor_type.ClearField("shape")
    stale = {states, *(name for node in model.graph.node for name in node.output)}
    kept = [info for info in model.graph.value_info if info.name not in stale]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    found: bytes = model.SerializeToString()
    return found


def operators(path: Path) -> dict[str, int]:
    """Number of nodes by operator, with the bits of quantised products; empty if the file cannot be read for it."""
    from onnx import helper

    model = _load(path)
    found: dict[str, int] = {}
    for node in () if model is None else model.graph.node:
        bits = [helper.get_attribute_value(one) for one in node.attribute if one.name == "bits"]
        name = f"{node.op_type}{bits[0]}" if bits else node.op_type
        found[name] = found.get(name, 0) + 1
    return found


def _load(path: Path) -> onnx.ModelProto | None:
    """The graph without external weights; ``None`` if the package onnx is missing or the file too large."""
    try:
        import onnx
    except ImportError:
        return None
    if path.stat().st_size > LARGEST_GRAPH:
        return None
    try:
        return onnx.load(path, load_external_data=False)
    except Exception:  # ONNX Runtime reads it, in a version that this package does not know
        return None


def _head_of(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The product that makes logits of hidden states; ``None`` for anything unusual."""
    makers = {name: node for node in graph.node for name in node.output}
    weights = {one.name for one in graph.initializer}

    def fixed(name: str) -> bool:
        """True for weights, and for what is made of nothing else."""
        node = makers.get(name)
        if not name or name in weights:
            return True
        return node is not None and node.op_type in FIXED and all(map(fixed, node.input))

    name = "logits"
    while name in makers:
        node: onnx.NodeProto = makers[name]
        moving = [one for one in node.input if not fixed(one)]
        if len(moving) != 1:
            return None
        if node.op_type in HEADS:
            return node if moving[0] == node.input[0] else None
        if node.op_type not in AFTER:
            return None
        name = moving[0]
    return None
