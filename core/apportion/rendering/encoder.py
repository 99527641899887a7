"""From many texts that are nearly alike to token ids: each stretch of text is tokenised once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from apportion.errors import InputError
from apportion.rendering.safe_splits import borders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "check_encodable"]

Ids = tuple[int, ...]

FEWEST = 16
"""With fewer texts there is little to gain."""
ANCHOR = "a"
"""Stretches but the first are tokenised after it, as they never stand at the beginning of a text."""
BLOCK = 128
"""Texts that are cut before they are put together: what is new in them is tokenised in one call."""
MOST = 200_000
"""Stretches that are remembered; texts without spaces are one stretch each."""


class Encoder:
    """Tokenises texts in stretches where that is known to give the ids of the whole text, and whole elsewhere.

    Prompts of coalitions are made of the same words. Where a tokenizer is sure to begin a new token
    (``safe_splits``), each stretch between two such borders is tokenised once, and texts are put together from
    them. The longest text of each call is tokenised whole as well, to be compared.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._border: re.Pattern[str] | None = None
        self._ready = False
        self._first: dict[str, Ids] = {}
        self._later: dict[str, Ids] = {}

    def __call__(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[Ids]:
        """Token ids of each text.

        Args:
            texts: whole prompts.
            special_tokens: with the special tokens that the tokenizer adds to a prompt.
        """
        found = self._in_stretches(texts, special_tokens) if len(texts) >= FEWEST else None
        return self._whole(texts, special_tokens) if found is None else found

    def _in_stretches(self, texts: Sequence[str], special_tokens: bool) -> list[Ids] | None:
        """The ids, or ``None`` where texts have to be tokenised whole."""
        if not self._ready:
            self._border, self._ready = borders(self._tokenizer), True
        if self._border is None:
            return None
        # The special tokens around a text are the same whatever the text is.
        before, after = self._around() if special_tokens else ((), ())
        found: list[Ids] = []
        for start in range(0, len(texts), BLOCK):
            parts = [*map(self._border.split, texts[start : start + BLOCK])]
            first = [part.pop(0) for part in parts]
            self._learn(set(first), set().union(*parts))
            beginning, later = self._first, self._later.__getitem__
            for begin, rest in zip(first, parts, strict=True):
                found.append((*before, *beginning[begin], *chain.from_iterable(map(later, rest)), *after))
        longest = max(range(len(texts)), key=lambda row: len(texts[row]))
        if [found[longest]] != self._whole([texts[longest]], special_tokens):
            self._refuse(texts[longest])
            return None
        return found

    def _learn(self, first: set[str], later: set[str]) -> None:
        """Tokenise the stretches that are new."""
        if len(self._first) + len(self._later) > MOST:
            self._first, self._later = {}, {}
        new = [*(first - self._first.keys())]
        self._first.update(zip(new, self._whole(new, False), strict=True))
        new = [*(later - self._later.keys())]
        if new:
            (anchor, *rows) = self._whole([ANCHOR, *(f"{ANCHOR} {text}" for text in new)], False)
            self._later.update(zip(new, (row[len(anchor) :] for row in rows), strict=True))

    def _around(self) -> tuple[Ids, Ids]:
        """Special tokens before and after each text."""
        (plain,), (ids,) = self._whole([ANCHOR], False), self._whole([ANCHOR], True)
        start = next(i for i in range(len(ids)) if ids[i : i + len(plain)] == plain)
        return ids[:start], ids[start + len(plain) :]

    def _whole(self, texts: Iterable[str], special_tokens: bool) -> list[Ids]:
        given = list(texts)
        if not given:
            return []
        encoded = self._tokenizer(given, add_special_tokens=special_tokens, return_attention_mask=False)
        return [tuple(row) for row in encoded["input_ids"]]

    def _refuse(self, text: str) -> None:
        self._border = None
        warnings.warn(
            f"Tokenising {text[:40]!r}… in stretches did not give the tokens of the whole text with "
            f"{type(self._tokenizer).__name__}, which it should. Texts are tokenised whole, which is slower and right; "
            "please report the model.",
            RuntimeWarning,
            stacklevel=3,
        )


def check_encodable(name: str, text: str) -> None:
    """Refuse text that is not Unicode: lone surrogates, which come from bytes in another encoding.

    Raises:
        InputError: with the position of the character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The {name} has a character that is not Unicode text at position {error.start}: "
            f"{text[error.start]!r}. Decode the bytes it comes from with their own encoding."
        ) from error
