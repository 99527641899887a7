"""Probe of an encoder–decoder model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import ModelError
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
from apportion_backends.torch.encoder_decoder import EncoderDecoder, half_config
from apportion_backends.torch.head import Head
from apportion_backends.torch.limits import encoder_length

__all__ = ["Seq2SeqProbe"]

TARGET = 7
"""Tokens that the decoder reads in each case."""


@dataclass(frozen=True, slots=True)
class _Case:
    """Random tokens of two prompts of one length, and of two targets; lengths of shorter prompts.

    Attributes:
        sources: prompts.
        targets: tokens that the decoder reads.
        shorter: lengths of the beginnings of the second prompt that are padded.
        logits: those of the first prompt and target.
    """

    sources: Int[Tensor, "2 L"]
    targets: Int[Tensor, "2 Q"]
    shorter: tuple[int, ...]
    logits: Float[Tensor, "1 Q V"]

    @property
    def length(self) -> int:
        return self.sources.shape[1]


class Seq2SeqProbe(Comparing[_Case]):
    """Probe of models that read the prompt in an encoder, and the target in a decoder.

    Args:
        model: the model, in ``scoring_mode``.

    Raises:
        ModelError: the model reads something else than text, or has no output layer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.halves = EncoderDecoder(model)
        if model.main_input_name != "input_ids":
            raise ModelError(
                f"{type(model).__name__} reads {model.main_input_name}, not text. Give a model whose encoder reads "
                "token ids, such as T5 or BART."
            )
        if model.get_output_embeddings() is None:
            raise ModelError(
                f"{type(model).__name__} has no output layer that writes tokens. Open the model with "
                "AutoModelForSeq2SeqLM, as T5ForConditionalGeneration or the like."
            )
        super().__init__(model, "an encoder–decoder language model", "an encoder with a causal decoder")

    def traits(self) -> Traits:
        """The shortcuts that the model allows."""
        config = self.model.config
        sizes = sorted({n for half in ("encoder", "decoder") for n in critical_sizes(half_config(config, half))})
        longer = longer_lengths(sizes, self.first.length, encoder_length(self.model))
        cases = [self.first, *(self._case(long, shorter) for long, shorter in longer)]
        for case in cases:
            self.check_causal(case)
        # Logits that are all the same, as those of a head of zeros, show nothing.
        batching = self.spread > 0 and all(map(self._same_batched, cases))
        return Traits(
            batching=batching,
            padding=batching and all(map(self._same_padded, cases)),
            prefix_sharing=False,
            packing=False,
            packing_limit=None,
            probed_length=beyond_probed(sizes),
            linear_head=self.spread > 0 and self._same_by_halves(),
            supports_logits_to_keep=False,
        )

    def agrees(self, traits: Traits) -> bool:
        """A quick check: a few forward passes of a few tokens."""
        self.check_causal(self.first)
        return self.spread > 0 and (not traits.linear_head or self._same_by_halves())

    def first_case(self) -> _Case:
        """A prompt of nine tokens."""
        return self._case(9, (5,))

    def expected_tokens(self, case: _Case) -> int:
        """Number of tokens that the decoder reads."""
        return case.targets.shape[1]

    def again(self, case: _Case, *, changed: bool) -> Float[Tensor, "1 Q V"]:
        """The logits of a case once more, or with another last token of the target."""
        target = case.targets[0].clone()
        if changed:
            target[-1] = case.targets[1, -1]
        return self._forward([case.sources[0]], target[None])

    def _case(self, long: int, shorter: tuple[int, ...]) -> _Case:
        read, written = (size or int(self.model.config.vocab_size) for size in self.halves.vocabularies)
        sources, targets = random_tokens(read, 2, long), random_tokens(written, 2, TARGET, seed=1)
        return _Case(sources, targets, shorter, self._forward([sources[0]], targets[:1]))

    def _forward(self, sources: Sequence[Int[Tensor, " L"]], targets: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q V"]:
        return self.halves.whole(self.halves.sources([row.tolist() for row in sources]), targets)

    def _same_batched(self, case: _Case) -> bool:
        """Compare every place in a batch, because a user's code may look at one of them."""
        both = self._forward(list(case.sources), case.targets)
        other = self._forward([case.sources[1]], case.targets[1:])
        return self.equal(both[:1], case.logits) and self.equal(both[1:], other)

    def _same_padded(self, case: _Case) -> bool:
        """A long prompt and shorter ones, with targets of other lengths, padded by two kinds of tokens."""
        first, other = case.targets
        rows = [case.sources[0], *(case.sources[1, :length] for length in case.shorter)]
        lengths = [len(first), *(2 + i % 4 for i in range(len(case.shorter)))]
        try:
            by_one, by_another = (
                self._forward(rows, torch.stack([first, *(torch.cat([other[:n], pad[n:]]) for n in lengths[1:])]))
                for pad in (first, other)
            )
        except REFUSALS:
            # The model takes no mask.
            return False
        return self.equal(by_one[:1], case.logits) and all(
            self.equal(by_one[i : i + 1, :n], by_another[i : i + 1, :n], LIKE)
            and self.equal(by_one[i : i + 1, :n], self._forward([rows[i]], other[None, :n]))
            for i, n in enumerate(lengths[1:], 1)
        )

    def _same_by_halves(self) -> bool:
        """The encoder alone, then the decoder alone, then the output layer."""
        head = plain_head(self.model, self.model)
        if head is None:
            return False
        try:
            states = self.halves.encode(self.halves.sources([self.first.sources[0].tolist()]))
            hidden = self.halves.decode(self.first.targets[:1], states, None)
        except REFUSALS:
            return False
        if hidden.shape[-1] != head.in_features:
            return False
        layer = Head.of(self.model)
        logits = torch.nn.functional.linear(hidden.to(head.weight.dtype), layer.weight, layer.bias)
        return self.equal(layer.capped(logits), self.first.logits, LIKE)
