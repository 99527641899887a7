"""A small model and tokenizer that are not of transformers, but are called like them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SmallModel", "WordTokenizer"]


class WordTokenizer:
    """Tokens are words of a fixed vocabulary; ``<s>`` comes first."""

    def __init__(self, words: Sequence[str], *, offsets: bool = True) -> None:
        self.words = ["<unk>", "<s>", *words]
        self.numbers = {word: number for number, word in enumerate(self.words)}
        self.offsets = offsets

    def encode(self, text: str, add_special_tokens: bool = True, return_tensors: str | None = None) -> Any:
        ids = [self.numbers.get(word, 0) for word in re.findall(r"<s>|[^\s<]+", text)]
        ids = [1, *ids] if add_special_tokens else ids
        return torch.tensor([ids]) if return_tensors == "pt" else ids

    def decode(self, ids: Any) -> str:
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        return " ".join(self.words[number] for number in ([numbers] if isinstance(numbers, int) else numbers))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.words[number] for number in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        if isinstance(tokens, str):
            return self.numbers.get(tokens, 0)
        return [self.numbers.get(token, 0) for token in tokens]

    def __call__(
        self, text: str, add_special_tokens: bool = True, return_offsets_mapping: bool = False, **_: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"input_ids": self.encode(text, add_special_tokens)}
        if return_offsets_mapping:
            if not self.offsets:
                raise NotImplementedError("this tokenizer has no offsets")
            spans = [match.span() for match in re.finditer(r"<s>|[^\s<]+", text)]
            found["offset_mapping"] = [(0, 0), *spans] if add_special_tokens else spans
        return found


class SmallModel(nn.Module):
    """Predicts the next token from all tokens; with ``causal=False``, each position sees all of them."""

    def __init__(self, vocabulary: int, *, causal: bool = True, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(vocabulary, 12)
            self.mix = nn.Linear(12, 12)
            self.head = nn.Linear(12, vocabulary)
        self.causal = causal
        self.forwards = 0

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SimpleNamespace:
        self.forwards += 1
        states = torch.tanh(self.mix(self.embed(input_ids)))
        length = states.shape[1]
        if self.causal:
            weights = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
        else:
            weights = torch.full((length, length), 1 / length)
        return SimpleNamespace(logits=self.head(weights.to(states) @ states * 4))

    def generate(self, input_ids: Tensor, max_new_tokens: int = 25, **_: Any) -> Tensor:
        for _ in range(max_new_tokens):
            last = self(input_ids).logits[:, -1:].argmax(-1)
            input_ids = torch.cat([input_ids, last], dim=1)
        return input_ids

    def prepare_inputs_for_generation(self, input_ids: Tensor, **given: Any) -> dict[str, Any]:
        return {"input_ids": input_ids, **given}

    def _update_model_kwargs_for_generation(self, outputs: Any, given: dict[str, Any]) -> dict[str, Any]:
        return given
