"""From a model to the graph of its decoder, by the exporter of PyTorch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import ModelError
from apportion_backends.onnxruntime.export.norms import divide_by_roots
from apportion_backends.onnxruntime.export.packed_module import (
    INPUTS,
    OUTPUTS,
    PackedDecoder,
    example_inputs,
    packed_attention_of,
)
from apportion_backends.onnxruntime.export.weights import Weights
from apportion_backends.onnxruntime.manifest import Sizes
from apportion_backends.torch.inputs import input_device

__all__ = ["OPSET", "quiet_exporter", "traced"]

OPSET = 20
LOGGERS = ("torch", "torch.onnx", "torch.export", "torch._export", "torch.fx", "torch._subclasses.fake_tensor")
"""Loggers of the exporter; a failure prints the whole graph."""
AXES = {
    "ids": "S", "positions": "S", "paths": "BL", "queries": "BQ", "seen": "BQ", "where": "S", "trunk": "C",
    "keys": "  P", "values": "  P", "last": "M", "predicts": "R", "reads": "O",
}  # fmt: skip
"""Names of the axes that may have any length; a space stands for one that may not."""


def traced(model: PreTrainedModel, sizes: Sizes) -> tuple[onnx.ModelProto, Weights]:
    """The graph of a model's decoder, without its head, and its weights, which are those of the model in memory.

    Args:
        model: model in fp32 on the CPU.
        sizes: its sizes.

    Raises:
        ModelError: PyTorch cannot export it.
    """
    inputs = example_inputs(
        sizes.layers, sizes.key, sizes.value, model.config.get_text_config().vocab_size, input_device(model)
    )
    dynamic = {
        name: {axis: torch.export.Dim.AUTO for axis, letter in enumerate(axes) if letter != " "}
        for name, axes in AXES.items()
    }
    with packed_attention_of(model), torch.no_grad(), quiet_exporter():
        try:
            program = torch.onnx.export(
                PackedDecoder(model).eval(),
                tuple(inputs[name] for name in INPUTS),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # the exporter fails in many ways
            if "KeyboardInterrupt" in str(error):  # it wraps even that
                raise KeyboardInterrupt from error
            raise ModelError(
                f"PyTorch cannot export this {type(model).__name__} as an ONNX graph: {_reason(error)} Score it with "
                "backend='torch'."
            ) from error
    assert program is not None
    graph, weights = _split(program)
    divide_by_roots(graph.graph)
    return graph, weights


def _split(program: torch.onnx.ONNXProgram) -> tuple[onnx.ModelProto, Weights]:
    """The graph, and its weights apart."""
    import onnx_ir as ir

    weights = Weights()
    graph = program.model.graph
    for name, value in graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        raw = getattr(tensor, "raw", None)
        weights.add(name, raw.detach().cpu().numpy() if isinstance(raw, Tensor) else tensor.numpy())
        # What is not there need not be copied into the graph.
        value.const_value = ir.Tensor(np.zeros(0, dtype=np.float32), name=name)
    model: onnx.ModelProto = ir.to_proto(program.model)
    # ONNX Runtime infers shapes again; these have the exporter's names of axes.
    del model.graph.value_info[:]
    for given in model.graph.input:
        for axis, letter in enumerate(AXES[given.name]):
            if letter != " ":
                given.type.tensor_type.shape.dim[axis].dim_param = letter
    for result in model.graph.output:
        result.type.tensor_type.ClearField("shape")
    return model, weights


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[0][:200].rstrip('.')}."


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Context without the exporter's warnings about packages that it does not need, and its reports on failures."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
