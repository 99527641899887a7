"""A form of root mean square norms that ONNX Runtime fuses into one operation."""

from __future__ import annotations

import onnx
from onnx import helper

__all__ = ["divide_by_roots"]


def divide_by_roots(graph: onnx.GraphProto) -> None:
    """Replace ``x * (1 / sqrt(y))``, as PyTorch exports ``rsqrt``, by ``x / sqrt(y)``.

    ONNX Runtime fuses a norm with a quotient, and does not know it with a reciprocal.
    """
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        for place in (0, 1):
            reciprocal = makers.get(node.input[place])
            root = makers.get(reciprocal.input[0]) if reciprocal is not None else None
            if reciprocal is None or reciprocal.op_type != "Reciprocal" or root is None or root.op_type != "Sqrt":
                continue
            quotient = helper.make_node("Div", [node.input[1 - place], root.output[0]], list(node.output), node.name)
            node.CopyFrom(quotient)
            break
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    left = [node for node in graph.node if node.op_type != "Reciprocal" or used.intersection(node.output)]
    del graph.node[:]
    graph.node.extend(left)
