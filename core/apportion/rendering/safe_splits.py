"""Positions in a text at which a tokenizer is certain to begin a new token.

A fast tokenizer is a pipeline. It takes added tokens out of the text, normalises the rest and splits it into words
(pre-tokenisation). Each word becomes tokens on its own, and special tokens are added around them. A text may be
tokenised in spans if no part of this pipeline looks across the border between two spans. The borders used here lie
before a space (U+0020) that follows a character that is not white space. L is the text before a border, and R is the
text after it, which begins with the space. Each part of the pipeline is accepted only under the following conditions.
If any part is not accepted, texts are tokenised whole.

- *Added tokens*: none contains such a border, strips the white space after it, or depends on its neighbours.
- *Normalisers* treat each character separately, or compose characters, which never involves a space.
- *Pre-tokenisers* never put L's last character and the space into one word. They split L as if nothing followed it, and
  R as if nothing preceded it. This holds if they split by the kind of character. It also holds for a regular expression
  that is matched from left to right, if no alternative looks behind or matches a space after anything but white space;
  alternatives that look ahead do so after white space, and L does not end with white space.
- *Without a pre-tokeniser*, byte-pair encoding sees the whole text. Every merge makes a token of the vocabulary, so
  nothing is merged across a border if no token of the vocabulary contains one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["borders"]

State = Mapping[str, Any]

META = "\u2581"
"""The character that represents a space in SentencePiece vocabularies."""
BORDER = re.compile(r"\S ")

_CONTRACTIONS = ("'s|'t|'re|'ve|'m|'ll|'d", "(?i:'s|'t|'re|'ve|'m|'ll|'d)")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ALTERNATIVES = (
    *_CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS[1]}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS[1]}?",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r"\p{N}",
    r"\p{N}+",
    r"\p{N}{1,2}",
    r"\p{N}{1,3}",
    r"\d",
    "[0-9]",
    "[一-龥぀-ゟ゠-ヿ]+",
    r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s*[\r\n]",
    r"\s+(?!\S)",
    r"\s+",
)
"""Alternatives in the regular expressions of GPT-2, GPT-4, GPT-4o, Llama 3, Qwen and DeepSeek."""

_LONGEST_FIRST = sorted(ALTERNATIVES, key=len, reverse=True)
_WHITE_SPACE = r"\s+"
_BY_KIND = ("Digits", "Punctuation")
_DROP_SPACES = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")
_COMPOSE = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
_REMOVE = ("StripAccents", "BertNormalizer")
"""These may remove characters, so that L ends with white space; that is harmless if white space is dropped."""


def borders(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """A pattern for the space that begins each span but the first; ``None`` if no border is certain."""
    if not _plain(tokenizer):
        return None
    core = tokenizer.backend_tokenizer
    normalising, cutting, around = (
        [*_steps(part, key)]
        for part, key in (
            (core.normalizer, "normalizers"),
            (core.pre_tokenizer, "pretokenizers"),
            (core.post_processor, "processors"),
        )
    )
    found = _cutting(cutting, _normalising(normalising, cutting))
    if found is None or not all(map(_is_around, around)) or not _added_tokens_stay_apart(tokenizer, normalising):
        return None
    if getattr(core.model, "dropout", None) or not (found.cuts or _merges_stay_apart(core, found.space)):
        return None
    # Not after the character for a space, nor where a normaliser treats the text after an added token as a beginning.
    never = {META} if found.space == META else set()
    if any(step["type"] == "Prepend" for step in normalising):
        never |= {token.content[-1:] for token in tokenizer.added_tokens_decoder.values()}
    return re.compile(rf" (?<=[^\s{''.join(re.escape(c) for c in sorted(never))}] )")


@dataclass(frozen=True, slots=True)
class _Words:
    """State of a text after some steps of the pipeline.

    Attributes:
        space: the character that now represents a space.
        cuts: true if a space begins a new word.
    """

    space: str = " "
    cuts: bool = False


def _plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if the tokenizer is such a pipeline, with no Python code before or after it."""
    from transformers import PreTrainedTokenizerFast

    own = type(tokenizer)
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(own, name) is getattr(PreTrainedTokenizerFast, name) for name in ("__call__", "_encode_plus")
    )


def _steps(part: Any, inner: str) -> Iterable[State]:
    """The steps of a part of the pipeline, with sequences unpacked; ``{"type": "unknown"}`` for an unknown step."""
    if part is None:
        return
    try:
        state = json.loads(part.__getstate__())
    except Exception:  # a step written in Python has no state
        yield {"type": "unknown"}
        return
    waiting = [state]
    while waiting:
        step = waiting.pop(0)
        if step["type"] == "Sequence" and inner in step:
            waiting = [*step[inner], *waiting]
        else:
            yield step


def _normalising(steps: Iterable[State], cutting: list[State]) -> _Words | None:
    """The state after all normalisers, or ``None`` if one of them may affect borders."""
    drops = bool(cutting) and cutting[0]["type"] in _DROP_SPACES
    space = " "
    for step in steps:
        kind = step["type"]
        if kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == META:
            space = META
        elif kind not in (*_COMPOSE, *(_REMOVE if drops else ())) and not (kind == "Prepend" and space == " "):
            return None
    return _Words(space)


def _cutting(steps: Iterable[State], words: _Words | None) -> _Words | None:
    for step in steps:
        words = None if words is None else _cut(step, words)
    return words


def _cut(step: State, words: _Words) -> _Words | None:
    """The state after one more step; ``None`` if the step may affect borders."""
    kind, plain = step["type"], words.space == " "
    if kind in _BY_KIND:
        return words
    if kind in _DROP_SPACES and plain:
        return _Words(" ", cuts=True)
    if kind == "Metaspace" and step["replacement"] == META and words.space in (" ", META):
        return _Words(META, words.cuts or bool(step.get("split", True)))
    if kind == "ByteLevel" and plain:
        return _Words("Ġ", words.cuts or bool(step.get("use_regex", True)))
    if kind == "Split":
        return _split(step, words)
    return None


def _split(step: State, words: _Words) -> _Words | None:
    pattern = step["pattern"]
    if pattern.get("String") == " ":
        return _Words(words.space, words.cuts or (words.space == " " and step["behavior"] in ("Isolated", "Removed")))
    found = _alternatives(pattern.get("Regex", ""))
    isolated = (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
    # "Removed" and inverted keeps the matches and drops the rest; nothing is dropped if white space matches too.
    if found is None or not isolated or words.space != " ":
        return None
    return _Words(" ", words.cuts or _WHITE_SPACE in found)


def _alternatives(pattern: str) -> list[str] | None:
    """The alternatives of a regular expression, or ``None`` if one of them is unknown."""
    found: list[str] = []
    while True:
        known = next((a for a in _LONGEST_FIRST if pattern == a or pattern.startswith(f"{a}|")), None)
        if known is None:
            return None
        found.append(known)
        if pattern == known:
            return found
        pattern = pattern[len(known) + 1 :]


def _is_around(step: State) -> bool:
    """True if the step adds the same special tokens around any text, or none."""
    if step["type"] == "TemplateProcessing":
        return sum("Sequence" in part for part in step["single"]) == 1
    return step["type"] in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _added_tokens_stay_apart(tokenizer: PreTrainedTokenizerBase, normalising: list[State]) -> bool:
    return not any(
        token.rstrip or token.single_word or (token.normalized and normalising) or BORDER.search(token.content)
        for token in tokenizer.added_tokens_decoder.values()
    )


def _merges_stay_apart(core: Any, space: str) -> bool:
    """True if byte-pair encoding without a pre-tokeniser never merges across a border."""
    model = core.model
    if type(model).__name__ != "BPE" or model.ignore_merges or space != META:
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    vocabulary = core.get_vocab(with_added_tokens=False)
    crossing = re.compile(f"[^{META}]{META}")
    return space in vocabulary and not any(map(crossing.search, vocabulary))
