"""Plain text, whose features are pieces of it, or tokens."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError
from apportion.prompts.text import Text
from apportion.protocols.features import Level, Segment
from apportion.protocols.inputs import InputAdapter
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext
from apportion.rendering.continuation import tokens_inside
from apportion.rendering.encoder import check_encodable
from apportion.rendering.token_texts import token_texts
from apportion_plugins.inputs.levels import coarser, nested, of_pieces, of_starts
from apportion_plugins.inputs.naming import kept_indices
from apportion_plugins.inputs.pieces import Pieces, cut
from apportion_plugins.inputs.units import Units

__all__ = ["PieceAdapter", "TokenAdapter", "text_adapter"]


def text_adapter(prompt: Text, context: AdaptContext) -> InputAdapter:
    """The adapter for a ``Text``.

    Raises:
        InputError: there is nothing to attribute to, or the text is not valid Unicode.
    """
    check_encodable("prompt", prompt.text)
    return TokenAdapter(prompt, context) if prompt.by == "tokens" else PieceAdapter(prompt, context)


class PieceAdapter:
    """Features are pieces of the text; each coalition is reassembled and tokenised separately."""

    def __init__(self, prompt: Text, context: AdaptContext) -> None:
        self._context = context
        self._pieces: Pieces = cut(prompt.text, prompt.by)
        self._baseline = None if prompt.baseline is None else str(prompt.baseline)
        self.baseline_ids = tokens_inside(context, self._baseline) if self._baseline else ()
        texts = self._pieces.pieces
        self._units = Units(texts, kept_indices(prompt.keep, texts), baseline=self._baseline or "")
        self.features = self._units.features
        self.segments = self._segments()
        self.levels = self._levels(prompt)

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Render and tokenise the text of each coalition."""
        present = self._units.present(mask).tolist()
        texts = [self._pieces.join(row, self._baseline) for row in present]
        return self._context.prompts(texts)

    def _segments(self) -> tuple[Segment, ...]:
        pieces = self._pieces
        found = []
        for gap, piece, feature in zip(pieces.gaps, pieces.pieces, self._units.feature_of, strict=True):
            found += [Segment(gap)] if gap else []
            found.append(Segment(piece, feature))
        return tuple(found + ([Segment(pieces.tail)] if pieces.tail else []))

    def _levels(self, prompt: Text) -> tuple[Level, ...]:
        spans = self._pieces.spans()
        found = of_pieces(prompt.text, prompt.by, [spans[unit] for unit in self._units.firsts])
        return nested(found, len(self.features))


class TokenAdapter:
    """Features are tokens of the model's own tokenizer; special tokens are always present."""

    def __init__(self, prompt: Text, context: AdaptContext) -> None:
        (self._ids,) = context.encode([prompt.text])
        plain = context.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        special = _added_around(self._ids, tuple(plain))
        texts = token_texts(context.tokenizer, self._ids)
        self.baseline_ids = _baseline_ids(prompt, context)
        # Read after other tokens, because decoders leave out the space before the first one.
        shown = "".join(token_texts(context.tokenizer, (*self._ids, *self.baseline_ids), len(self._ids)))
        self._units = Units(texts, special | kept_indices(prompt.keep, texts), baseline=shown)
        self.features = self._units.features
        self.segments = tuple(
            Segment(text, feature)
            for i, (text, feature) in enumerate(zip(texts, self._units.feature_of, strict=True))
            if i not in special
        )
        self.feature_of_token = tuple(self._units.feature_of)
        self.levels = self._levels(prompt.text, context)

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Render token ids, with absent tokens removed or replaced by the baseline."""
        inputs = []
        for row in self._units.present(mask).tolist():
            parts = ((token,) if here else self.baseline_ids for token, here in zip(self._ids, row, strict=True))
            inputs.append(ModelInput(tuple(token for part in parts for token in part)))
        return inputs

    def _levels(self, text: str, context: AdaptContext) -> tuple[Level, ...]:
        """Levels from the offsets of tokens, which only fast tokenizers provide."""
        if not context.tokenizer.is_fast:
            return ()
        offsets = context.tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
        starts = [offsets[unit][0] for unit in self._units.firsts]
        return nested((of_starts(text, name, starts) for name in coarser("tokens")), len(self.features))


def _added_around(ids: tuple[int, ...], plain: tuple[int, ...]) -> frozenset[int]:
    """Positions of the special tokens that the tokenizer added before and after the text."""
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
            raise InputError(f"baseline={prompt.baseline} is not a valid token id: this tokenizer has {size} tokens.")
        return (prompt.baseline,)
    return tokens_inside(context, prompt.baseline)
