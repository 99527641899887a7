"""Probe of a model: shortcuts are tried on a few random tokens instead of looked up by the model's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.protocols.row import Row
from apportion_backends.torch.comparing import (
    LIKE,
    REFUSALS,
    Comparing,
    Traits,
    beyond_probed,
    longer_lengths,
    plain_head,
    random_tokens,
)
from apportion_backends.torch.critical_sizes import critical_sizes
from apportion_backends.torch.encoder_decoder import is_encoder_decoder
from apportion_backends.torch.head import Head
from apportion_backends.torch.inputs import cache_argument
from apportion_backends.torch.limits import context_length
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed import PackedModel, longest_packed_row
from apportion_backends.torch.prefix import PrefixStore
from apportion_backends.torch.seq2seq_probe import Seq2SeqProbe

__all__ = ["probe", "still_holds"]


def probe(model: PreTrainedModel) -> Traits:
    """Compare each shortcut with one-row forwards on random tokens.

    Raises:
        ModelError: logits depend on later tokens, so that a target would see itself; or the model gives
            numbers that are not finite.
    """
    with scoring_mode(model):
        return _probe(model).traits()


def still_holds(model: PreTrainedModel, traits: Traits) -> bool:
    """True if a model whose weights were changed in place is still causal, and its head what it was.

    Raises:
        ModelError: it is not causal any more, or gives numbers that are not finite.
    """
    with scoring_mode(model):
        return _probe(model).agrees(traits)


def _probe(model: PreTrainedModel) -> CausalProbe | Seq2SeqProbe:
    return Seq2SeqProbe(model) if is_encoder_decoder(model) else CausalProbe(model)


@dataclass(frozen=True, slots=True)
class _Case:
    """Random tokens: two rows of one length, with the logits of the first, and lengths of shorter rows."""

    long: Int[Tensor, " L"]
    other: Int[Tensor, " L"]
    shorter: tuple[int, ...]
    logits: Float[Tensor, "1 L V"]

    @property
    def length(self) -> int:
        return len(self.long)


class CausalProbe(Comparing[_Case]):
    """Probe of models that continue their prompt.

    Args:
        model: the model, in ``scoring_mode``.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.window = longest_packed_row(model)
        config = model.config.get_text_config()
        self.vocabulary: int = config.vocab_size
        self.length_dependent = _length_dependent_positions(config)
        self.sizes = critical_sizes(config)
        super().__init__(model, "a causal or an encoder–decoder language model", "a causal language model")

    def traits(self) -> Traits:
        """The shortcuts that the model allows."""
        limit = context_length(self.model)
        longer = longer_lengths(self.sizes, self.first.length, limit)
        cases = [self.first, *(self._case(long, shorter) for long, shorter in longer)]
        for case in cases:
            self.check_causal(case)
        # Logits that are all the same, as those of a head of zeros, show nothing.
        batching = self.spread > 0 and all(map(self._same_batched, cases))
        regular = batching and not self.length_dependent
        linear_head = self.spread > 0 and self._same_by_linear_head()
        return Traits(
            batching=batching,
            padding=regular and all(map(self._same_padded, cases)),
            prefix_sharing=regular and all(map(self._same_with_prefix, cases)),
            packing=regular and linear_head and all(map(self._same_packed, cases)),
            packing_limit=self.window,
            probed_length=beyond_probed(self.sizes),
            linear_head=linear_head,
            supports_logits_to_keep=self._same_with_kept_rows(),
        )

    def agrees(self, traits: Traits) -> bool:
        """A quick check: three forward passes of a few tokens."""
        self.check_causal(self.first)
        return self.spread > 0 and (not traits.linear_head or self._same_by_linear_head())

    def first_case(self) -> _Case:
        """Nine tokens."""
        return self._case(9, (5,))

    def again(self, case: _Case, *, changed: bool) -> Float[Tensor, "1 L V"]:
        """The logits of a case once more, or with another last token."""
        ids = case.long.clone()
        if changed:
            ids[-1] = case.other[-1]
        return self._forward(ids)

    def _case(self, long: int, shorter: tuple[int, ...]) -> _Case:
        ids = random_tokens(self.vocabulary, 2, long)
        return _Case(ids[0], ids[1], shorter, self._forward(ids[0]))

    def _forward(self, ids: Int[Tensor, "*B S"]) -> Float[Tensor, "B S V"]:
        batch = ids if ids.ndim == 2 else ids[None]
        logits: Tensor = self.model(batch.to(self.device), use_cache=False, return_dict=True).logits
        return logits

    def _same_batched(self, case: _Case) -> bool:
        """Compare every place in a batch, because a user's code may look at one of them."""
        both = self._forward(torch.stack([case.long, case.other]))
        return self.equal(both[:1], case.logits) and self.equal(both[1:], self._forward(case.other))

    def _same_padded(self, case: _Case) -> bool:
        """A long row and shorter ones, padded by two kinds of tokens."""
        shorter = [case.other[:length] for length in case.shorter]
        first, second = (
            self._forward(torch.stack([case.long, *(torch.cat([row, pad[len(row) :]]) for row in shorter)]))
            for pad in (case.other, case.long)
        )
        return self.equal(first[:1], case.logits) and all(
            self.equal(first[i : i + 1, : len(row)], second[i : i + 1, : len(row)], LIKE)
            and self.equal(first[i : i + 1, : len(row)], self._forward(row))
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
                if not self.equal(out.logits[:1], case.logits[:, shared:]):
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
        return all(self.equal(ours[: len(one)], one) for ours, one in zip(logits, alone, strict=True))

    def _same_by_linear_head(self) -> bool:
        head = plain_head(self.model, self.model)
        if head is None or self.model.base_model is self.model:
            return False
        try:
            ids = self.first.long[None].to(self.device)
            hidden = self.model.base_model(ids, use_cache=False, return_dict=True)[0]
        except REFUSALS:
            return False
        if hidden.shape[-1] != head.in_features:
            return False
        hidden = hidden.to(head.weight.dtype)
        logits = nn.functional.linear(hidden, head.weight, head.bias)
        return self.equal(Head.of(self.model).capped(logits), self.first.logits, LIKE)

    def _same_with_kept_rows(self) -> bool:
        rows = torch.tensor([[2, 3]], device=self.device)
        ids = self.first.long[None].to(self.device)
        try:
            kept = self.model(ids, use_cache=False, return_dict=True, logits_to_keep=rows).logits
        except REFUSALS:
            return False
        return self.equal(kept, self.first.logits[:, 2:4])


def _length_dependent_positions(config: object) -> bool:
    """Rotary embeddings that change with the longest row of a batch ("dynamic", "longrope").

    Random tokens cannot show it: the change begins beyond the original context length.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)] or [rope]
    return any(value.get("rope_type") in ("dynamic", "longrope") for value in nested)
