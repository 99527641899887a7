"""The head of the graph: log-probabilities of the targets, the vocabulary in slices."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from apportion_backends.onnxruntime.export.weights import Weights
from apportion_backends.onnxruntime.manifest import SLICE
from apportion_backends.torch.head import Head

__all__ = ["BIAS", "PREFIX", "WEIGHT", "add_head"]

PREFIX = "head."
"""Beginning of the names of everything in the head."""
WEIGHT = "head.weight"
BIAS = "head.bias"
STATES = "predicting"
"""Output of the decoder that the head reads, and that the graph does not return."""


def add_head(model: onnx.ModelProto, weights: Weights, head: Head) -> str:
    """Add the output ``log_probs`` to a decoder: ``log_softmax`` of the head's logits at the input ``targets``.

    Logits are computed in slices of the vocabulary, each with its maximum and sum (Milakov and Gimelshein,
    arXiv 1805.02867), so that no more than one slice is in memory.

    Args:
        model: the decoder; changed in place.
        weights: its weights.
        head: the output layer.

    Returns:
        The name of the head's weight; that of the embedding if they are the same.
    """
    graph = model.graph
    array = head.weight.detach().cpu().numpy()
    whole = weights.same_as(array) or weights.add(WEIGHT, array)
    bias = None if head.bias is None else weights.add(BIAS, head.bias.detach().float().cpu().numpy())
    cap = None if head.soft_cap is None else weights.add("head.soft_cap", np.float32(head.soft_cap))
    axis = weights.add("head.axis", np.array([1]))
    nodes: list[onnx.NodeProto] = []

    def node(kind: str, inputs: list[str], name: str, **attributes: int) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, None, None, None, **attributes))
        return name

    def capped(logits: str, name: str) -> str:
        if cap is None:
            return logits
        tanh = node("Tanh", [node("Div", [logits, cap], f"{name}.scaled")], f"{name}.tanh")
        return node("Mul", [tanh, cap], f"{name}.capped")

    def log_sum(logits: str, name: str) -> str:
        most = node("ReduceMax", [logits, axis], f"{name}.most", keepdims=1)
        exp = node("Exp", [node("Sub", [logits, most], f"{name}.below")], f"{name}.exp")
        total = node("Log", [node("ReduceSum", [exp, axis], f"{name}.sum", keepdims=1)], f"{name}.log")
        return node("Add", [most, total], f"{name}.total")

    sums = []
    for first in range(0, len(array), SLICE):
        after, name = min(first + SLICE, len(array)), f"head.{first}"
        offset = [] if bias is None else [weights.add_rows(f"{name}.bias", BIAS, first, after)]
        part = weights.add_rows(f"{name}.weight", whole, first, after)
        logits = capped(node("Gemm", [STATES, part, *offset], f"{name}.logits", transB=1), name)
        sums.append(log_sum(logits, name))
    total = log_sum(node("Concat", sums, "head.totals", axis=1), "head.all")
    total = node("Squeeze", [total, axis], "head.total")
    rows = node("Gather", [whole, "targets"], "head.rows", axis=0)
    chosen = node("ReduceSum", [node("Mul", [STATES, rows], "head.products"), axis], "head.product", keepdims=0)
    if bias is not None:
        chosen = node("Add", [chosen, node("Gather", [BIAS, "targets"], "head.offsets")], "head.chosen")
    node("Sub", [capped(chosen, "head.chosen"), total], "log_probs")
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("targets", TensorProto.INT64, ["R"]))
    kept = [output for output in graph.output if output.name != STATES]
    del graph.output[:]
    graph.output.extend([helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["R"]), *kept])
    return whole
