"""Finding out what a model allows: it is tried on a few random tokens instead of recognised by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.errors import ModelError
from apportion.protocols.row import Row
from apportion_backends.torch.cache_argument import cache_argument
from apportion_backends.torch.checksum import own_forward, user_hooks
from apportion_backends.torch.head import Head
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed import PackedModel, longest_packed_row
from apportion_backends.torch.placement import input_device
from apportion_backends.torch.prefix import PrefixStore

__all__ = ["Traits", "probe"]

# The largest difference between two ways of computing the same logits, in units of their standard deviation.
# LIKE: the same operations on the same shapes, where rounding is the same too and only what is really seen
# makes a difference. UNLIKE: other shapes, where kernels round otherwise.
LIKE = 1e-4
UNLIKE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

DYNAMIC = "torch.ao.nn.quantized.dynamic"
"""Modules of layers that ``quantize_dynamic`` makes."""

REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, AssertionError)
"""How model code refuses arguments that it does not know or shapes that it does not expect."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The shortcuts that a model allows for the layout of rows and for its head.

    Attributes:
        batching: rows of one length may share a batch.
        padding: rows of different lengths may, padded on the right and without a mask.
        prefix_sharing: a prefix may be encoded once.
        packing: rows may be read as a prefix tree.
        packing_limit: how long they may be; ``None`` for any length.
        linear_head: logits are the output embedding, soft-capped where the configuration says so, applied to the base
            model's last hidden state.
        supports_logits_to_keep: the model takes ``logits_to_keep`` as positions for each row.
    """

    batching: bool
    padding: bool
    prefix_sharing: bool
    packing: bool
    packing_limit: int | None
    linear_head: bool
    supports_logits_to_keep: bool

    def without_places(self) -> Traits:
        """Only the shortcuts by which every token stands as far from the beginning as it does in a row alone."""
        return replace(self, packing=False, prefix_sharing=False)

    def notes(self) -> tuple[str, ...]:
        """Sentences for results, for what is out of the ordinary."""
        notes = []
        if not self.batching:
            notes.append("this model gives other numbers in a batch; rows are scored one at a time")
        elif not self.padding:
            notes.append("this model sees padding; batches hold rows of one length")
        return tuple(notes)


def probe(model: PreTrainedModel) -> Traits:
    """Compare each shortcut with one-row forwards on random tokens.

    Raises:
        ModelError: logits depend on later tokens, so that a target would see itself; or the model gives
            numbers that are not finite.
    """
    with scoring_mode(model):
        return _Probe(model).traits()


class _Probe:
    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        config = model.config.get_text_config()
        vocabulary = config.vocab_size
        draw = torch.Generator().manual_seed(0)
        low = vocabulary // 4
        ids = torch.randint(low, max(low + 1, vocabulary - low), (3, 9), generator=draw)
        self.long, self.other, self.short = ids[0], ids[1], ids[2, :5]
        self.window = longest_packed_row(model)
        self.length_dependent = _length_dependent_positions(config)
        self.logits = self._first_forward()
        if not bool(torch.isfinite(self.logits).all()):
            raise ModelError(
                "The model's logits are not finite on random tokens. Check its weights, or use a dtype with a "
                "larger range (float32, bfloat16)."
            )
        self.scale = float(self.logits.double().std()) or 1.0
        self.unlike = UNLIKE.get(model.dtype, 1e-4)

    def traits(self) -> Traits:
        self._check_causal()
        batching = self._same_batched()
        regular = batching and not self.length_dependent
        linear_head = self._same_by_linear_head()
        return Traits(
            batching=batching,
            padding=regular and self._same_padded(),
            prefix_sharing=regular and self._same_with_prefix(),
            packing=regular and linear_head and self._same_packed(),
            packing_limit=self.window,
            linear_head=linear_head,
            supports_logits_to_keep=self._same_with_kept_rows(),
        )

    def _first_forward(self) -> Float[Tensor, "B S V"]:
        model = self.model
        if getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} is an encoder–decoder model; apportion scores causal language models, "
                "which continue their prompt."
            )
        try:
            return self._forward(self.long)
        except REFUSALS as error:
            raise ModelError(
                f"{type(model).__name__} does not give next-token logits in {model.dtype} on {input_device(model)}: "
                f"{str(error).rstrip('.'):.300}. Give a causal language model with a head, or try another dtype "
                "or device."
            ) from error

    def _forward(self, ids: Int[Tensor, "*B S"]) -> Float[Tensor, "B S V"]:
        batch = ids if ids.ndim == 2 else ids[None]
        logits: Tensor = self.model(batch.to(input_device(self.model)), use_cache=False, return_dict=True).logits
        return logits

    def _equal(self, ours: Tensor, reference: Tensor, tolerance: float | None = None) -> bool:
        if ours.shape != reference.shape:
            return False
        allowed = (self.unlike if tolerance is None else tolerance) * self.scale
        return float((ours - reference).abs().max()) <= allowed

    def _check_causal(self) -> None:
        changed = self.long.clone()
        changed[-1] = self.other[-1]
        if not self._equal(self._forward(changed)[:, :-1], self.logits[:, :-1], LIKE):
            if any(type(module).__module__.startswith(DYNAMIC) for module in self.model.modules()):
                raise ModelError(
                    "The layers of this model quantise all tokens of a forward pass by one scale (quantize_dynamic), "
                    "so that a token's logits depend on later tokens. Quantise the weights alone, for example by "
                    "torchao's Int8WeightOnlyConfig, or use the model as it was."
                )
            raise ModelError(
                f"{type(self.model).__name__} is not a causal language model: its logits depend on later tokens, so "
                "a target scored in one pass would see itself."
            )

    def _same_batched(self) -> bool:
        both = self._forward(torch.stack([self.long, self.other]))
        return self._equal(both[:1], self.logits)

    def _same_padded(self) -> bool:
        length = len(self.short)
        pads = (self.other[length:], self.long[length:])
        first, second = (self._forward(torch.stack([self.long, torch.cat([self.short, pad])])) for pad in pads)
        seen = not self._equal(first[:, :length], second[:, :length], LIKE)
        return (
            not seen
            and self._equal(first[:1], self.logits)
            and self._equal(first[1:, :length], self._forward(self.short))
        )

    def _same_with_prefix(self) -> bool:
        """One prefix, its extension, and a part of it; each read twice, because reading must not change it."""
        prefixes = PrefixStore(self.model)
        rows = torch.stack([self.long, self.other]).to(input_device(self.model))
        try:
            for shared in (3, 5, 4, 5):
                cache = prefixes.get(tuple(self.long[:shared].tolist()))
                if cache is None:
                    return False
                kept: dict[str, Any] = {cache_argument(self.model): cache}
                out = self.model(rows[:, shared:], use_cache=True, return_dict=True, **kept)
                if not self._equal(out.logits[:1], self.logits[:, shared:]):
                    return False
        except REFUSALS:
            # The model does not take such a cache; its rows are scored whole.
            return False
        return True

    def _same_packed(self) -> bool:
        """Rows that share beginnings, in two batches of which the second goes on from the first."""
        a, b = tuple(self.long.tolist()), tuple(self.other.tolist())
        first = [Row(a[:6], a[6:]), Row(a[:4] + b[4:6], b[6:]), Row(a[:4] + b[4:6], a[2:4])]
        second = [Row(a[:4] + b[4:5] + a[5:7], a[7:]), Row(b[:8], b[8:])]
        try:
            if self.window is not None and self.window < len(a):
                return False
            packed, layer, head = PackedModel(self.model), self.model.get_output_embeddings(), Head.of(self.model)
            return all(self._equal_rows(rows, head.capped(layer(packed.hidden(rows)))) for rows in (first, second))
        except REFUSALS:
            # The model's attention is not to be exchanged, or its layers do not hand on what it needs.
            return False

    def _equal_rows(self, rows: Sequence[Row], logits: Float[Tensor, "B T V"]) -> bool:
        alone = [self._forward(torch.tensor(row.read))[0, len(row.prompt) - 1 :] for row in rows]
        return all(self._equal(ours[: len(one)], one) for ours, one in zip(logits, alone, strict=True))

    def _same_by_linear_head(self) -> bool:
        head = self.model.get_output_embeddings()
        if type(head) is not nn.Linear or self.model.base_model is self.model or _overridden(self.model, head):
            return False
        # Quantised and offloaded weights are not matrices that can be cut into slices.
        if type(head.weight) not in (Tensor, nn.Parameter) or head.weight.is_meta:
            return False
        if getattr(self.model, "hf_device_map", None):
            return False  # the parts are on several devices; the model's own forward moves between them
        try:
            ids = self.long[None].to(input_device(self.model))
            hidden = self.model.base_model(ids, use_cache=False, return_dict=True)[0]
        except REFUSALS:
            return False
        if hidden.shape[-1] != head.in_features:
            return False
        hidden = hidden.to(head.weight.dtype)
        logits = nn.functional.linear(hidden, head.weight, head.bias)
        return self._equal(Head.of(self.model).capped(logits), self.logits, LIKE)

    def _same_with_kept_rows(self) -> bool:
        rows = torch.tensor([[2, 3]], device=input_device(self.model))
        try:
            kept = self.model(
                self.long[None].to(input_device(self.model)), use_cache=False, return_dict=True, logits_to_keep=rows
            ).logits
        except REFUSALS:
            return False
        return self._equal(kept, self.logits[:, 2:4])


def _overridden(*modules: nn.Module) -> bool:
    """True if a user's code, which no probe can vouch for, is part of these modules' own forward."""
    return any([*user_hooks(module)] or own_forward(module) for module in modules)


def _length_dependent_positions(config: object) -> bool:
    """Rotary embeddings that change with the longest row of a batch ("dynamic", "longrope").

    Random tokens cannot show it: the change begins beyond the original context length.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)] or [rope]
    return any(value.get("rope_type") in ("dynamic", "longrope") for value in nested)
