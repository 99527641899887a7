"""Plain text: features are pieces of it, or tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError, check_encodable
from apportion.features import Feature, Segment
from apportion.inputs import AdaptContext, InputAdapter, ModelInput
from apportion.prompts import Text
from apportion.tokens import token_texts
from apportion_plugins.inputs.naming import kept_indices, unique_names
from apportion_plugins.inputs.pieces import Pieces, cut

__all__ = ["PieceAdapter", "TokenAdapter", "text_adapter"]


def text_adapter(prompt: Text, context: AdaptContext) -> InputAdapter:
    """The adapter for a ``Text``.

    Raises:
        InputError: nothing is left to attribute to, or the text is no Unicode.
    """
    check_encodable("prompt", prompt.text)
    return TokenAdapter(prompt, context) if prompt.by == "tokens" else PieceAdapter(prompt, context)


class _Kept:
    """Bookkeeping of the pieces that are features and those that are always present."""

    def __init__(self, texts: Sequence[str], prompt: Text, always: frozenset[int], baseline: str) -> None:
        kept = always | kept_indices(prompt.keep, texts)
        self.columns = [i for i in range(len(texts)) if i not in kept]
        if not self.columns:
            raise InputError(f"All {len(texts)} features are kept; leave at least one to attribute to.")
        self.n_pieces = len(texts)
        shown = [texts[i] for i in self.columns]
        names = unique_names(shown)
        self.features = tuple(Feature(n, t, baseline=baseline) for n, t in zip(names, shown, strict=True))
        of_piece = {piece: feature for feature, piece in enumerate(self.columns)}
        self.feature_of = [of_piece.get(piece) for piece in range(len(texts))]

    def present(self, mask: Bool[Tensor, "S F"]) -> Bool[Tensor, "S P"]:
        """Which of all P pieces are present."""
        pieces = torch.ones(len(mask), self.n_pieces, dtype=torch.bool)
        pieces[:, self.columns] = mask
        return pieces


class PieceAdapter:
    """Features are stretches of the text; every coalition is put together and tokenised anew."""

    def __init__(self, prompt: Text, context: AdaptContext) -> None:
        self._context = context
        self._pieces: Pieces = cut(prompt.text, prompt.by)
        self._baseline = None if prompt.baseline is None else str(prompt.baseline)
        self._kept = _Kept(self._pieces.pieces, prompt, frozenset(), self._baseline or "")
        self.features = self._kept.features
        self.segments = self._segments()

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Tokenised texts, one for each coalition."""
        present = self._kept.present(mask).tolist()
        texts = [self._pieces.join(row, self._baseline) for row in present]
        return [ModelInput(ids) for ids in self._context.encode(texts)]

    def _segments(self) -> tuple[Segment, ...]:
        pieces = self._pieces
        found = []
        for gap, piece, feature in zip(pieces.gaps, pieces.pieces, self._kept.feature_of, strict=True):
            found += [Segment(gap)] if gap else []
            found.append(Segment(piece, feature))
        return tuple(found + ([Segment(pieces.tail)] if pieces.tail else []))


class TokenAdapter:
    """Features are the tokens of the model's own tokeniser; special tokens are always present."""

    def __init__(self, prompt: Text, context: AdaptContext) -> None:
        (self._ids,) = context.encode([prompt.text])
        plain = context.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        special = _added_around(self._ids, tuple(plain))
        texts = token_texts(context.tokenizer, self._ids)
        self._baseline = _baseline_ids(prompt, context)
        shown = "".join(token_texts(context.tokenizer, self._baseline))
        self._kept = _Kept(texts, prompt, special, shown)
        self.features = self._kept.features
        self.segments = tuple(
            Segment(text, feature)
            for i, (text, feature) in enumerate(zip(texts, self._kept.feature_of, strict=True))
            if i not in special
        )

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Token ids, with absent tokens removed or replaced by the baseline's."""
        inputs = []
        for row in self._kept.present(mask).tolist():
            parts = ((token,) if here else self._baseline for token, here in zip(self._ids, row, strict=True))
            inputs.append(ModelInput(tuple(token for part in parts for token in part)))
        return inputs


def _added_around(ids: tuple[int, ...], plain: tuple[int, ...]) -> frozenset[int]:
    """Positions of the special tokens that the tokeniser put before and after the text's own."""
    extra = len(ids) - len(plain)
    for before in range(extra + 1):
        if ids[before : before + len(plain)] == plain:
            return frozenset(range(before)) | frozenset(range(before + len(plain), len(ids)))
    return frozenset()


def _baseline_ids(prompt: Text, context: AdaptContext) -> tuple[int, ...]:
    if prompt.baseline is None:
        return ()
    if isinstance(prompt.baseline, int):
        size = len(context.tokenizer)
        if not 0 <= prompt.baseline < size:
            raise InputError(f"baseline={prompt.baseline} is no token id of this tokenizer, which has {size} tokens.")
        return (prompt.baseline,)
    return tuple(context.tokenizer(prompt.baseline, add_special_tokens=False)["input_ids"])
