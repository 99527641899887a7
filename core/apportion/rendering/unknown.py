"""Texts that a tokenizer does not know, in whose place the model reads the unknown token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.errors import listing, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["note_on_unknown"]

MOST = 5


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
    found = [one for one in _texts(tokenizer, text, unknown, as_target=as_target) if one.strip() != token]
    if not found and ids.count(unknown) <= text.count(token):
        return None
    named = f": {listing(map(shown, dict.fromkeys(found)), MOST)}" if found else ""
    return f"the tokenizer does not know parts of the {name}, for which the model reads {token}{named}"


def _texts(tokenizer: PreTrainedTokenizerBase, text: str, unknown: int, *, as_target: bool) -> list[str]:
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
