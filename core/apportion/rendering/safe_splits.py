"""Where a tokenizer is sure to begin a new token, whatever else the text says.

A fast tokenizer is a pipeline: added tokens are taken out of the text, the rest is normalised and cut into words, each
word becomes tokens by itself, and special tokens are put around all. A text may be tokenised in stretches if nothing in
this pipeline looks over the border between two of them. The borders here are before a space (U+0020) that follows a
character that is no white space; L is what stands before one, R what follows, the space first. Each part of the
pipeline is accepted only where the following holds; anything else is refused, and its texts are tokenised whole.

- *Added tokens*: none holds such a border, strips the white space after it, or asks what stands beside it.
- *Normalisers* treat each character by itself, or compose characters, which a space never takes part in.
- *Cutting into words*: never takes L's last character and the space into one word, and cuts L as if nothing came after
  it and R as if nothing came before. That is so where characters are cut by their own kind, and for regular
  expressions, matched from left to right, no alternative of which matches a space after anything but white space or
  looks behind; those that look ahead do so after white space, which L does not end with.
- *Without words*, byte-pair encoding sees the whole text. It merges only what makes a token of its vocabulary, so that
  nothing is merged over the border if no such token holds one.
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
"""What stands for a space in SentencePiece vocabularies."""
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
"""Of the regular expressions of GPT-2, GPT-4, GPT-4o, Llama 3, Qwen and DeepSeek; above is what they have in common."""

_LONGEST_FIRST = sorted(ALTERNATIVES, key=len, reverse=True)
_WHITE_SPACE = r"\s+"
_BY_KIND = ("Digits", "Punctuation")
_DROP_SPACES = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")
_COMPOSE = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
_REMOVE = ("StripAccents", "BertNormalizer")
"""They may take characters away, so that L ends with white space; that changes nothing where white space is dropped."""


def borders(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Matches the space that each stretch but the first begins with; ``None`` where nothing is sure."""
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
    # Not after what stands for a space, nor where a normaliser takes the text after an added token for a beginning.
    never = {META} if found.space == META else set()
    if any(step["type"] == "Prepend" for step in normalising):
        never |= {token.content[-1:] for token in tokenizer.added_tokens_decoder.values()}
    return re.compile(rf" (?<=[^\s{''.join(re.escape(c) for c in sorted(never))}] )")


@dataclass(frozen=True, slots=True)
class _Words:
    """What the steps so far have made of a text.

    Attributes:
        space: what a space has become.
        cuts: there is a border between words before it.
    """

    space: str = " "
    cuts: bool = False


def _plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """It is a pipeline, and nothing in Python comes before or after it."""
    from transformers import PreTrainedTokenizerFast

    own = type(tokenizer)
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(own, name) is getattr(PreTrainedTokenizerFast, name) for name in ("__call__", "_encode_plus")
    )


def _steps(part: Any, inner: str) -> Iterable[State]:
    """The steps of a part of the pipeline, sequences unpacked; ``{"type": …}`` without more for what is not known."""
    if part is None:
        return
    try:
        state = json.loads(part.__getstate__())
    except Exception:  # a step that is written in Python has no state
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
    """What a space is after all normalisers, or ``None`` if one is not known to leave borders alone."""
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
    """What one step makes of words; ``None`` if it is not known to leave borders alone."""
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
    # Removed, inverted: what matches is kept; the rest is lost, and nothing is where white space matches.
    if found is None or not isolated or words.space != " ":
        return None
    return _Words(" ", words.cuts or _WHITE_SPACE in found)


def _alternatives(pattern: str) -> list[str] | None:
    """The alternatives of a regular expression, if all are known."""
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
    """It puts the same special tokens around any text, or none."""
    if step["type"] == "TemplateProcessing":
        return sum("Sequence" in part for part in step["single"]) == 1
    return step["type"] in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _added_tokens_stay_apart(tokenizer: PreTrainedTokenizerBase, normalising: list[State]) -> bool:
    return not any(
        token.rstrip or token.single_word or (token.normalized and normalising) or BORDER.search(token.content)
        for token in tokenizer.added_tokens_decoder.values()
    )


def _merges_stay_apart(core: Any, space: str) -> bool:
    """Whether byte-pair encoding of a text without words merges nothing over a border."""
    model = core.model
    if type(model).__name__ != "BPE" or model.ignore_merges or space != META:
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    vocabulary = core.get_vocab(with_added_tokens=False)
    crossing = re.compile(f"[^{META}]{META}")
    return space in vocabulary and not any(map(crossing.search, vocabulary))
