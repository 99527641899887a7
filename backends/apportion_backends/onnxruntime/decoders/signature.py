"""Recognition of a decoder by the inputs and outputs of its graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.errors import ModelError, listing
from apportion_backends.onnxruntime.decoders.files import DecoderFiles

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["ROWS", "Signature", "signature_of"]

PAST = re.compile(r"past(?:_key_values)?[._](?:(key|value)[._])?(\d+)(?:[._](?:decoder[._])?(key|value))?$")
PRESENT = re.compile(r"present(?:_key_values)?[._](?:(key|value)[._])?(\d+)(?:[._](?:decoder[._])?(key|value))?$")
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
ROWS = "apportion_rows"
"""Input of a graph whose head was cut to some positions: row and position of each."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a decoder.

    Attributes:
        ids: dtype of the token ids.
        mask: dtype of ``attention_mask``; ``None`` if there is none.
        positions: dtype of ``position_ids``; ``None`` if there are none.
        past: names of inputs for keys and values, with the outputs that become them.
        past_dtype: their dtype.
        heads: number of key heads.
        head_size: size of a key head.
        vocabulary: number of logits, if the graph states it.
        logits: dtype of the logits.
    """

    ids: type[Any]
    mask: type[Any] | None
    positions: type[Any] | None
    past: Mapping[str, str]
    past_dtype: type[Any]
    heads: int
    head_size: int
    vocabulary: int | None
    logits: type[Any]

    @property
    def past_bytes(self) -> int:
        """Memory of the keys and values of one token."""
        return len(self.past) * self.heads * self.head_size * np.dtype(self.past_dtype).itemsize


def signature_of(session: ort.InferenceSession, files: DecoderFiles) -> Signature:
    """Read the signature of a graph.

    Raises:
        ModelError: it is not that of a decoder.
    """
    inputs = {one.name: one for one in session.get_inputs()}
    if {"paths", "trunk"} <= set(inputs):
        raise ModelError(
            f"{str(files.graph)!r} is the graph of an export by apportion. Give the folder that it was exported to, "
            "with its apportion-export.json; if that is lost, export the model again."
        )
    outputs = {one.name: one for one in session.get_outputs()}
    name = str(files.graph)
    for needed, there in (("input_ids", inputs), ("logits", outputs)):
        if needed not in there:
            raise ModelError(
                f"{name!r} is not a decoder: it has no {'input' if there is inputs else 'output'} {needed!r}. Its "
                f"inputs are {listing(inputs)}, its outputs {listing(outputs)}."
            )
    fixed = inputs["input_ids"].shape
    if any(isinstance(size, int) for size in fixed[1:]) or (fixed and isinstance(fixed[0], int) and fixed[0] > 1):
        raise ModelError(
            f"{name!r} cannot be scored: its graph takes {' × '.join(map(str, fixed))} tokens and no other number. "
            "Export it with dynamic axes."
        )
    past = {one: _layer(PAST, one) for one in inputs if _layer(PAST, one)}
    present = {_layer(PRESENT, one): one for one in outputs if _layer(PRESENT, one)}
    known = {"input_ids", "attention_mask", "position_ids", *past}
    unknown = [one for one in inputs if one not in known]
    if unknown:
        raise ModelError(
            f"{name!r} cannot be scored: it has inputs that text alone does not give: {listing(unknown)}. Decoders "
            "with input_ids, attention_mask, position_ids and past keys and values can; of an optimum export, take "
            "decoder_with_past_model.onnx or model.onnx."
        )
    without = [one for one, layer in past.items() if layer not in present]
    if without:
        raise ModelError(f"{name!r} cannot be scored: it has no outputs for its inputs {listing(without)}.")
    first = next((inputs[one] for one in past), None)
    heads, size = _heads(first, files) if first is not None else (0, 0)
    if first is not None and not (heads and size):
        raise ModelError(
            f"{name!r} cannot be scored: neither the graph nor a config.json or genai_config.json beside it states the "
            "number and size of its key heads."
        )
    last = outputs["logits"].shape[-1] if outputs["logits"].shape else None
    return Signature(
        ids=_dtype(inputs["input_ids"], name),
        mask=_dtype(inputs["attention_mask"], name) if "attention_mask" in inputs else None,
        positions=_dtype(inputs["position_ids"], name) if "position_ids" in inputs else None,
        past={one: present[layer] for one, layer in past.items()},
        past_dtype=_dtype(first, name) if first is not None else np.float32,
        heads=heads,
        head_size=size,
        vocabulary=last if isinstance(last, int) else None,
        logits=_dtype(outputs["logits"], name),
    )


def _layer(pattern: re.Pattern[str], name: str) -> tuple[int, str] | None:
    found = pattern.match(name)
    return (int(found[2]), found[1] or found[3]) if found and (found[1] or found[3]) else None


def _heads(past: Any, files: DecoderFiles) -> tuple[int, int]:
    """Number and size of key heads, from the shape ``[batch, heads, past, size]``, or else from the settings."""
    shape = list(past.shape)
    stated = [one if isinstance(one, int) else 0 for one in shape] if len(shape) == 4 else [0] * 4
    heads = stated[1] or files.size("num_key_value_heads", "num_attention_heads", "n_head") or 0
    return heads, stated[3] or files.head_size or 0


def _dtype(value: Any, name: str) -> type[Any]:
    if value.type not in TYPES:
        raise ModelError(
            f"{name!r} cannot be scored: {value.name!r} is a {value.type}; known types are {listing(TYPES)}."
        )
    return TYPES[value.type]
