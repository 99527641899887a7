"""Readable texts of token ids, and texts that have no token of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from apportion.errors import listing, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["added_text", "control_ids", "note_on_unknown", "token_texts", "whole_texts"]

CONTEXT = 4
"""Number of preceding tokens that can affect how a token is decoded (a leading space, a joined character)."""
LONGEST = 8
"""Maximum number of tokens in one UTF-8 character."""
MOST_NAMED = 5
"""Maximum number of unknown texts that a note names."""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first: int = 0) -> tuple[str, ...]:
    """The text that each token adds, without byte marks (``Ġ``, ``▁``) but with spaces.

    If several tokens make up one character, each shows that character with a number: ``🙂₁``, ``🙂₂``.

    Args:
        tokenizer: the tokenizer of the ids.
        ids: token ids.
        first: index of the first token of interest; those before it only affect how it is decoded.
    """
    texts: list[str] = []
    for size, text in whole_texts(tokenizer, ids, first):
        texts += [text] if size == 1 else [f"{text}{str(i + 1).translate(SUBSCRIPTS)}" for i in range(size)]
    return tuple(texts)


def whole_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first: int = 0) -> Iterator[tuple[int, str]]:
    """Numbers of tokens that make up whole characters, usually one, each with the text that they add."""
    start = first
    while start < len(ids):
        size, text = _shortest_whole(tokenizer, ids, start)
        yield size, text
        start += size


def _shortest_whole(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int) -> tuple[int, str]:
    """The fewest tokens from ``start`` that decode to whole characters, and their text."""
    for size in range(1, min(LONGEST, len(ids) - start) + 1):
        text = added_text(tokenizer, ids, start, start + size)
        if "\ufffd" not in text:
            return size, text
    token = tokenizer.convert_ids_to_tokens(int(ids[start]))
    return 1, str(token)


def added_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int, stop: int) -> str:
    """The text that decoding up to ``stop`` adds to decoding up to ``start``."""
    first = max(0, start - CONTEXT)
    before = str(tokenizer.decode(list(ids[first:start]), clean_up_tokenization_spaces=False))
    upto = str(tokenizer.decode(list(ids[first:stop]), clean_up_tokenization_spaces=False))
    # A context cut inside a character decodes differently; then decode the tokens without it.
    if not upto.startswith(before):
        return str(tokenizer.decode(list(ids[start:stop]), clean_up_tokenization_spaces=False))
    return upto[len(before) :]


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of control tokens, such as the end of a text or the markup of a chat template."""
    added = (token for token, content in tokenizer.added_tokens_decoder.items() if content.special)
    return frozenset((*tokenizer.all_special_ids, *added))


def note_on_unknown(
    tokenizer: PreTrainedTokenizerBase, name: str, text: str, ids: tuple[int, ...], *, as_target: bool = False
) -> str | None:
    """A sentence on the texts that became the unknown token; ``None`` if none did.

    Some tokenizers use one token for unknown text and for the end of a text. These know all texts.

    Args:
        tokenizer: the tokenizer.
        name: what the text is, such as ``"prompt"``.
        text: the text.
        ids: its tokens.
        as_target: it is encoded as what a decoder writes.
    """
    unknown = tokenizer.unk_token_id
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if unknown is None or unknown in others or unknown not in ids:
        return None
    token = str(tokenizer.unk_token)
    found = [one for one in _unknown_texts(tokenizer, text, unknown, as_target=as_target) if one.strip() != token]
    if not found and ids.count(unknown) <= text.count(token):
        return None
    named = f": {listing(map(shown, dict.fromkeys(found)), MOST_NAMED)}" if found else ""
    return f"the tokenizer does not know parts of the {name}, for which the model reads {token}{named}"


def _unknown_texts(tokenizer: PreTrainedTokenizerBase, text: str, unknown: int, *, as_target: bool) -> list[str]:
    """The texts of unknown tokens, whole where they follow each other; none if the tokenizer does not tell."""
    if not tokenizer.is_fast:
        return []
    given = {"text_target" if as_target else "text": text}
    found = tokenizer(**given, add_special_tokens=False, return_offsets_mapping=True)
    spans: list[tuple[int, int]] = []
    for token, (start, stop) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        if token != unknown or stop <= start:
            continue
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, stop))
    return [text[start:stop] for start, stop in spans]
