"""Tiny models as other packages leave them: quantised, offloaded, dispatched."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from apportion.testing import tiny


def tiny_copy(width: int = 32) -> PreTrainedModel:
    """A tiny Llama in single precision; 4-bit layers need rows of 64 weights."""
    if width == 32:
        return copy.deepcopy(tiny.model(dtype=torch.float32))
    config = tiny.config("llama")
    config.hidden_size, config.intermediate_size, config.head_dim = width, width, width // 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def in_4_bits() -> PreTrainedModel:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = tiny_copy(128)
    for module in list(model.model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                packed = bitsandbytes.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32, quant_type="nf4"
                )
                packed.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
                setattr(module, name, packed)
    return model.to("cpu")


def in_8_bits(head: bool) -> PreTrainedModel:
    quantization = pytest.importorskip("torchao.quantization")
    model = tiny_copy()

    def chosen(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and (head or "lm_head" not in name)

    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(), filter_fn=chosen)
    return model


def offloaded(folder: Path) -> PreTrainedModel:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.cpu_offload(tiny_copy(), execution_device="cpu")


def on_disk(folder: Path) -> PreTrainedModel:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.disk_offload(tiny_copy(), offload_dir=folder, execution_device="cpu")


def dispatched(folder: Path) -> PreTrainedModel:
    """One layer on the disk, the others in memory, each with hooks that move its inputs."""
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    accelerate = pytest.importorskip("accelerate")
    return accelerate.dispatch_model(
        tiny_copy(), places | {"model.layers.1": "disk"}, main_device="cpu", offload_dir=folder, force_hooks=True
    )


def by_device_map(folder: Path) -> PreTrainedModel:
    tiny_copy().save_pretrained(folder / "model")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / "model", device_map="auto", max_memory={"cpu": "60KB"}, offload_folder=folder, dtype=torch.float32
    )
