"""Probe of a model: shortcuts are tried on a few random tokens instead of looked up by the model's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.errors import ModelError
from apportion.protocols.row import Row
from apportion_backends.torch.critical_sizes import critical_sizes
from apportion_backends.torch.head import Head
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.limits import context_length
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed import PackedModel, longest_packed_row
from apportion_backends.torch.prefix import PrefixStore
from apportion_backends.torch.user_code import own_forward, user_hooks

__all__ = ["Traits", "difference", "probe", "still_holds"]

# The largest difference between two ways of computing the same logits, in units of their standard deviation.
# LIKE: the same operations on the same shapes, where rounding is the same too and only what is really seen
# makes a difference. UNLIKE: other shapes, where kernels round otherwise.
LIKE = 1e-4
UNLIKE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

DYNAMIC = "torch.ao.nn.quantized.dynamic"
"""Modules of layers that ``quantize_dynamic`` makes."""

LONGEST_PROBED = 64
"""The largest critical size that is tried at once. Batches with rows beyond a larger one are compared with rows alone
when there are any, because forward passes of thousands of tokens would make every start slow."""

REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, AssertionError)
"""Errors by which model code refuses unknown arguments or unexpected shapes."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The shortcuts that a model allows for the layout of rows and for its head.

    Attributes:
        batching: rows of one length may share a batch.
        padding: rows of different lengths may, padded on the right and without a mask.
        prefix_sharing: a prefix may be encoded once.
        packing: rows may be read as a prefix tree.
        packing_limit: length of the longest packed row; ``None`` for any length.
        probed_length: length of rows up to which the findings are certain; ``None`` for any length.
        linear_head: logits are the output embedding, soft-capped where the configuration says so, applied to the base
            model's last hidden state.
        supports_logits_to_keep: the model takes ``logits_to_keep`` as positions for each row.
    """

    batching: bool
    padding: bool
    prefix_sharing: bool
    packing: bool
    packing_limit: int | None
    probed_length: int | None
    linear_head: bool
    supports_logits_to_keep: bool

    def without_places(self) -> Traits:
        """Only the shortcuts by which every token stands as far from the beginning as it does in a row alone.

        The model's own forward makes the logits, because a user's code may be part of it.
        """
        return replace(self, packing=False, prefix_sharing=False, linear_head=False)

    def notes(self) -> tuple[str, ...]:
        """Sentences for results, for what is out of the ordinary."""
        notes = []
        if not self.batching:
            notes.append("this model gives other numbers in a batch; rows are scored one at a time")
        elif not self.padding:
            notes.append("padding changes this model's numbers; batches hold rows of one length")
        return tuple(notes)


def probe(model: PreTrainedModel) -> Traits:
    """Compare each shortcut with one-row forwards on random tokens.

    Raises:
        ModelError: logits depend on later tokens, so that a target would see itself; or the model gives
            numbers that are not finite.
    """
    with scoring_mode(model):
        return _Probe(model).traits()


def still_holds(model: PreTrainedModel, traits: Traits) -> bool:
    """True if a model whose weights were changed in place is still causal, and its head what it was.

    Raises:
        ModelError: it is not causal any more, or gives numbers that are not finite.
    """
    with scoring_mode(model):
        return _Probe(model).agrees(traits)


@dataclass(frozen=True, slots=True)
class _Case:
    """Random tokens: two rows of one length, with the logits of the first, and lengths of shorter rows."""

    long: Int[Tensor, " L"]
    other: Int[Tensor, " L"]
    shorter: tuple[int, ...]
    logits: Float[Tensor, "1 L V"]


class _Probe:
    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = input_device(model)
        config = model.config.get_text_config()
        self.window = longest_packed_row(model)
        self.length_dependent = _length_dependent_positions(config)
        self.sizes = critical_sizes(config)
        self.cases: list[_Case] = []
        self.first = self._first_case(config.vocab_size)
        self.spread = float(self.first.logits[self.first.logits.isfinite()].double().std())
        self.scale = self.spread or 1.0
        self.unlike = UNLIKE.get(model.dtype, 1e-4)

    def traits(self) -> Traits:
        self.cases = [self.first, *self._longer_cases(self.model.config.get_text_config().vocab_size)]
        for case in self.cases:
            self._check_causal(case)
        # Logits that are all the same, as those of a head of zeros, show nothing.
        batching = self.spread > 0 and all(map(self._same_batched, self.cases))
        regular = batching and not self.length_dependent
        linear_head = self.spread > 0 and self._same_by_linear_head()
        return Traits(
            batching=batching,
            padding=regular and all(map(self._same_padded, self.cases)),
            prefix_sharing=regular and all(map(self._same_with_prefix, self.cases)),
            packing=regular and linear_head and all(map(self._same_packed, self.cases)),
            packing_limit=self.window,
            probed_length=next((size for size in self.sizes if size > LONGEST_PROBED), None),
            linear_head=linear_head,
            supports_logits_to_keep=self._same_with_kept_rows(),
        )

    def agrees(self, traits: Traits) -> bool:
        """A quick check: three forward passes of a few tokens."""
        self._check_causal(self.first)
        return self.spread > 0 and (not traits.linear_head or self._same_by_linear_head())

    def _first_case(self, vocabulary: int) -> _Case:
        model = self.model
        if getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} is an encoder–decoder model; apportion scores causal language models, "
                "which continue their prompt."
            )
        try:
            case = self._case(vocabulary, 9, (5,))
        except REFUSALS as error:
            raise ModelError(
                f"{type(model).__name__} does not give next-token logits in {model.dtype} on {self.device}: "
                f"{str(error).rstrip('.'):.300}. Give a causal language model with a head, or try another dtype "
                "or device."
            ) from error
        if case.logits.shape[:2] != (1, len(case.long)):
            raise ModelError(
                f"{type(model).__name__} does not give logits for each token: those of {len(case.long)} tokens have "
                f"the shape {tuple(case.logits.shape)}. Give a causal language model with a head."
            )
        # Tokens that a model never writes may have logits of -inf.
        usable = case.logits.isfinite()
        if bool((~usable & (case.logits != -torch.inf)).any()) or not bool(usable.any(-1).all()):
            raise ModelError(
                "The model's logits are not finite on random tokens. Check its weights, or use a dtype with a "
                "larger range (float32, bfloat16)."
            )
        return case

    def _longer_cases(self, vocabulary: int) -> Iterator[_Case]:
        """Rows around the sizes at which the model's attention changes, as far as it reads them."""
        limit = context_length(self.model)
        for size in (size for size in self.sizes if size <= LONGEST_PROBED):
            # Which of many keys are attended to may depend on the length, where several rank alike.
            several = (size + 1, size + 3, 2 * size + 1, 3 * size + 2)
            for long, shorter in ((size + 2, (size - 1,)), (2 * size + 3, (size + 1,)), (4 * size + 5, several)):
                if long > len(self.first.long) and (limit is None or long <= limit):
                    yield self._case(vocabulary, long, shorter)

    def _case(self, vocabulary: int, long: int, shorter: tuple[int, ...]) -> _Case:
        draw = torch.Generator().manual_seed(0)
        low = vocabulary // 4
        ids = torch.randint(low, max(low + 1, vocabulary - low), (2, long), generator=draw)
        return _Case(ids[0], ids[1], shorter, self._forward(ids[0]))

    def _forward(self, ids: Int[Tensor, "*B S"]) -> Float[Tensor, "B S V"]:
        batch = ids if ids.ndim == 2 else ids[None]
        logits: Tensor = self.model(batch.to(self.device), use_cache=False, return_dict=True).logits
        return logits

    def _equal(self, ours: Tensor, reference: Tensor, tolerance: float | None = None) -> bool:
        if ours.shape != reference.shape:
            return False
        allowed = (self.unlike if tolerance is None else tolerance) * self.scale
        return float(difference(ours, reference).max()) <= allowed

    def _check_causal(self, case: _Case) -> None:
        changed = case.long.clone()
        changed[-1] = case.other[-1]
        if self._equal(self._forward(changed)[:, :-1], case.logits[:, :-1], LIKE):
            return
        if not self._equal(self._forward(case.long), case.logits, LIKE):
            raise ModelError(
                f"{type(self.model).__name__} gives other logits each time for the same tokens, so that differences "
                "between prompts mean nothing. Switch off what draws random numbers or counts calls, such as a hook."
            )
        if any(type(module).__module__.startswith(DYNAMIC) for module in self.model.modules()):
            raise ModelError(
                "The layers of this model quantise all tokens of a forward pass by one scale (quantize_dynamic), "
                "so that a token's logits depend on later tokens. Quantise the weights alone, for example by "
                "torchao's Int8WeightOnlyConfig, or use the model as it was."
            )
        longer = "" if case is self.first else f" in rows of {len(case.long)} tokens"
        raise ModelError(
            f"{type(self.model).__name__} is not a causal language model{longer}: its logits depend on later tokens, "
            "so a target scored in one pass would see itself."
        )

    def _same_batched(self, case: _Case) -> bool:
        """Compare every place in a batch, because a user's code may look at one of them."""
        both = self._forward(torch.stack([case.long, case.other]))
        return self._equal(both[:1], case.logits) and self._equal(both[1:], self._forward(case.other))

    def _same_padded(self, case: _Case) -> bool:
        """A long row and shorter ones, padded by two kinds of tokens."""
        shorter = [case.other[:length] for length in case.shorter]
        first, second = (
            self._forward(torch.stack([case.long, *(torch.cat([row, pad[len(row) :]]) for row in shorter)]))
            for pad in (case.other, case.long)
        )
        return self._equal(first[:1], case.logits) and all(
            self._equal(first[i : i + 1, : len(row)], second[i : i + 1, : len(row)], LIKE)
            and self._equal(first[i : i + 1, : len(row)], self._forward(row))
            for i, row in enumerate(shorter, 1)
        )

    def _same_with_prefix(self, case: _Case) -> bool:
        """One prefix, its extension, and a part of it; each read twice, because reading must not change it."""
        prefixes = PrefixStore(self.model)
        rows = torch.stack([case.long, case.other]).to(self.device)
        length = len(case.long)
        try:
            for shared in (length // 3, length // 2 + 1, length // 2, length // 2 + 1):
                cache = prefixes.get(tuple(case.long[:shared].tolist()))
                if cache is None:
                    return False
                kept: dict[str, Any] = {cache_argument(self.model): cache}
                out = self.model(rows[:, shared:], use_cache=True, return_dict=True, **kept)
                if not self._equal(out.logits[:1], case.logits[:, shared:]):
                    return False
        except REFUSALS:
            # The model does not take such a cache; its rows are scored whole.
            return False
        return True

    def _same_packed(self, case: _Case) -> bool:
        """Rows that share beginnings, in two batches of which the second goes on from the first."""
        a, b = tuple(case.long.tolist()), tuple(case.other.tolist())
        if self.window is not None and self.window < len(a):
            # Longer rows are not packed; if not even the first case fits, none are.
            return case is not self.first
        i, j, k = (len(a) * share // 9 for share in (4, 6, 8))
        first = [Row(a[:j], a[j:]), Row(a[:i] + b[i:j], b[j:]), Row(a[:i] + b[i:j], a[2:i])]
        second = [Row(a[:i] + b[i : i + 1] + a[i + 1 : k - 1], a[k - 1 :]), Row(b[:k], b[k:])]
        try:
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
            ids = self.first.long[None].to(self.device)
            hidden = self.model.base_model(ids, use_cache=False, return_dict=True)[0]
        except REFUSALS:
            return False
        if hidden.shape[-1] != head.in_features:
            return False
        hidden = hidden.to(head.weight.dtype)
        logits = nn.functional.linear(hidden, head.weight, head.bias)
        return self._equal(Head.of(self.model).capped(logits), self.first.logits, LIKE)

    def _same_with_kept_rows(self) -> bool:
        rows = torch.tensor([[2, 3]], device=self.device)
        ids = self.first.long[None].to(self.device)
        try:
            kept = self.model(ids, use_cache=False, return_dict=True, logits_to_keep=rows).logits
        except REFUSALS:
            return False
        return self._equal(kept, self.first.logits[:, 2:4])


def difference(ours: Tensor, reference: Tensor) -> Tensor:
    """Absolute differences; equal infinities have none, because unused tokens may have logits of -inf."""
    return torch.where(ours == reference, 0, (ours - reference).abs())


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
