"""ONNX files of tiny models, each made once for all workers of a test run: exports, and decoders of others."""

from __future__ import annotations

import contextlib
import functools
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from filelock import FileLock
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

import apportion as ap
from apportion.testing import tiny
from apportion_backends.onnxruntime.export.trace import quiet_exporter


class Exports:
    """Makes files when they are first needed.

    Args:
        root: folder that all workers share.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, family: str, precision: str = "fp32") -> Path:
        """An export of a tiny model."""
        pair = tiny.model(family, torch.float32), tiny.tokenizer()
        return self._made(f"{family}-{precision}", lambda folder: ap.export(pair, folder, precision=precision))

    def optimum(self, family: str, dtype: torch.dtype = torch.float32) -> Path:
        """A tiny model in the layout of optimum: all inputs, and a ``config.json``."""
        name = f"optimum-{family}-{str(dtype).removeprefix('torch.')}"
        return self._made(name, lambda folder: write_decoder(tiny.model(family, dtype), folder))

    def genai(self, precision: str = "fp32") -> Path:
        """A tiny Llama by the model builder of ONNX Runtime GenAI: no positions, and a ``genai_config.json``."""
        return self._made(f"genai-{precision}", lambda folder: build_genai(folder, precision))

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        folder = self._root / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                make(folder)
        return folder


class Decoder(nn.Module):
    """A model from ids, mask, positions, keys and values to logits, keys and values."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: Any) -> Any:
        cache = DynamicCache([(key, value) for key, value in past])
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def write_decoder(model: PreTrainedModel, folder: Path) -> None:
    """Export a model as others do, with inputs and outputs named as optimum names them."""
    folder.mkdir()
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers, rows, past, new = config.num_hidden_layers, 2, 5, 3
    kept = [tuple(torch.zeros(rows, heads, past, size, dtype=model.dtype) for _ in range(2)) for _ in range(layers)]
    ids = torch.ones(rows, new, dtype=torch.long)
    positions = torch.arange(past, past + new).expand(rows, -1).contiguous()
    some = torch.export.Dim.AUTO
    names = [f"past_key_values.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            Decoder(model),
            (ids, torch.ones(rows, past + new, dtype=torch.long), positions, kept),
            dynamo=True,
            dynamic_shapes=(*[{0: some, 1: some}] * 3, [({0: some, 2: some},) * 2] * layers),
            input_names=["input_ids", "attention_mask", "position_ids", *names],
            output_names=["logits", *(name.replace("past_key_values", "present") for name in names)],
            verbose=False,
        )
    program.save(folder / "model.onnx")
    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@functools.cache
def genai_model() -> PreTrainedModel:
    """A Llama whose heads have the 16 numbers that GroupQueryAttention needs."""
    config = tiny.config("llama")
    config.hidden_size, config.head_dim = 64, 16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def build_genai(folder: Path, precision: str) -> None:
    """Build a model from a folder: ``python -m onnxruntime_genai.models.builder`` in this process."""
    source = folder.with_name(f"{folder.name}-source")
    genai_model().save_pretrained(source)
    tiny.tokenizer().save_pretrained(source)
    arguments = ["builder", "-i", str(source), "-o", str(folder), "-p", precision, "-e", "cpu"]
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], mock.patch.object(sys, "argv", arguments):
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
