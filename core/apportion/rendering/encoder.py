"""Tokenisation of many similar texts: each span of text is tokenised once."""

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

__all__ = ["Encoder", "added_around", "check_encodable"]

SAMPLE = "a"
"""The special tokens around a text do not depend on the text."""

Ids = tuple[int, ...]

FEWEST = 16
"""Minimum number of texts; with fewer, little time is saved."""
ANCHOR = "a"
"""All spans but the first are tokenised after this text, because they never begin a text."""
BLOCK = 128
"""Number of texts that are split at a time; their new spans are tokenised in one call."""
MOST = 200_000
"""Maximum number of cached spans; a text without spaces is a single span."""


class Encoder:
    """Tokenises texts in spans if that is known to give the ids of the whole text, and whole otherwise.

    Prompts of different coalitions consist of the same words. A tokenizer is certain to begin a new token at some
    borders (``safe_splits``). Each span between two borders is tokenised once, and texts are assembled from spans. As a
    check, the longest text of each call is also tokenised whole and compared.

    Args:
        tokenizer: the model's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._border: re.Pattern[str] | None = None
        self._ready = False
        self._first: dict[str, Ids] = {}
        self._later: dict[str, Ids] = {}

    def __call__(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[Ids]:
        """Tokenise each text.

        Args:
            texts: whole prompts.
            special_tokens: include the special tokens that the tokenizer adds to a prompt.
        """
        found = self._in_stretches(texts, special_tokens) if len(texts) >= FEWEST else None
        return self._whole(texts, special_tokens) if found is None else found

    def _in_stretches(self, texts: Sequence[str], special_tokens: bool) -> list[Ids] | None:
        """Return the ids, or ``None`` if texts have to be tokenised whole."""
        if not self._ready:
            self._border, self._ready = borders(self._tokenizer), True
        if self._border is None:
            return None
        before, after = added_around(self._tokenizer) if special_tokens else ((), ())
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
        """Tokenise new spans."""
        if len(self._first) + len(self._later) > MOST:
            self._first, self._later = {}, {}
        new = [*(first - self._first.keys())]
        self._first.update(zip(new, self._whole(new, False), strict=True))
        new = [*(later - self._later.keys())]
        if new:
            (anchor, *rows) = self._whole([ANCHOR, *(f"{ANCHOR} {text}" for text in new)], False)
            self._later.update(zip(new, (row[len(anchor) :] for row in rows), strict=True))

    def _whole(self, texts: Iterable[str], special_tokens: bool) -> list[Ids]:
        given = list(texts)
        if not given:
            return []
        encoded = self._tokenizer(given, add_special_tokens=special_tokens, return_attention_mask=False)
        return [tuple(row) for row in encoded["input_ids"]]

    def _refuse(self, text: str) -> None:
        self._border = None
        warnings.warn(
            f"Tokenising {text[:40]!r}… in spans did not give the tokens of the whole text with "
            f"{type(self._tokenizer).__name__}. Texts are now tokenised whole, which is correct but slower; please "
            "report the model.",
            RuntimeWarning,
            stacklevel=3,
        )


def check_encodable(name: str, text: str) -> None:
    """Reject text that is not valid Unicode: lone surrogates, which come from bytes in another encoding.

    Raises:
        InputError: the text has such a character; the message gives its position.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The {name} has an invalid Unicode character at position {error.start}: "
            f"{text[error.start]!r}. Decode the original bytes with the right encoding."
        ) from error


def added_around(
    tokenizer: PreTrainedTokenizerBase, *, as_target: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after each text; none if they cannot be told from the text's own tokens.

    Args:
        tokenizer: the tokenizer.
        as_target: those around a text that a decoder writes.
    """
    text = {"text_target" if as_target else "text": SAMPLE}
    plain, ids = (
        tuple(tokenizer(**text, add_special_tokens=special, return_attention_mask=False)["input_ids"])
        for special in (False, True)
    )
    # A post-processor may also repeat the text.
    starts = [i for i in range(len(ids) - len(plain) + 1) if ids[i : i + len(plain)] == plain]
    if not plain or len(starts) != 1:
        return (), ()
    return ids[: starts[0]], ids[starts[0] + len(plain) :]
