"""The tokens with which a text, such as a target, continues a prompt.

Many tokenizers mark the beginning of a text, or let tokens depend on what stands before. So a text has other tokens
alone than after a prompt. Those after the prompt are found by this rule:

1. Prompt and text are tokenised as one text. If it begins with the prompt's tokens, the rest continues the prompt.
2. If other tokens of the one text make up exactly the prompt, the rest continues the prompt too, after its own tokens.
3. If a token of the one text reaches across the border, the prompt keeps its own tokens, and the text gets tokens with
   which both read like the one text: those that it has alone, or else those that it has after another character, in the
   middle of a text. If none of them reads right, the closest are used.

If only the prompt's tokens are known, and not its text, step 3 applies. Except in the first case there is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from apportion.phrases import quoted
from apportion.rendering.context import AdaptContext, PromptText
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.token_texts import CONTEXT, token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Continuation", "continuation", "tokens_inside"]

Ids = tuple[int, ...]

ANCHORS = ("a", "z", "x", "0", ".", "\n")
"""Characters that put a text in the middle of another one; hardly any text merges with all of them."""
SHOWN, LONGEST = 4, 40
"""Maximum number of tokens in a note, and of characters of each."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text as the continuation of a prompt.

    Attributes:
        ids: its tokens; none if it adds nothing to the prompt.
        note: a sentence for the result, if they are not just what follows the prompt's tokens in the one text.
    """

    ids: Ids
    note: str = ""


def continuation(full: FullPrompt, name: str, text: str) -> Continuation:
    """Find the tokens with which a text continues a prompt.

    Args:
        full: the prompt.
        name: name of the text in the note, such as ``"target"``.
        text: the text.
    """
    context, prompt, known = full.context, full.input.ids, full.text
    if known is None:
        seam = _Seam(context.tokenizer, prompt, len(prompt))
        ids = _fitting(context, seam, seam.read(()) + text, text)
        note = f"the text of the prompt is not known, so the {name} was tokenised apart from it, as {seam.shown(ids)}"
        return Continuation(ids, note if ids else "")
    (whole,) = context.encode([known.text + text], special_tokens=known.special_tokens)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
    if shared == len(prompt) and (_ends_known(context, prompt) or _begins_a_token(context, prompt, known, text)):
        return Continuation(whole[shared:])
    seam = _Seam(context.tokenizer, prompt, shared)
    border = seam.border(whole)
    if border:
        return _after_others(seam, whole, border, name)
    return _across(context, seam, whole, known, name, text)


def tokens_inside(context: AdaptContext, text: str) -> tuple[int, ...]:
    """The tokens of a text in the middle of another one: without a mark of the beginning that nobody wrote."""
    (before,) = context.encode(ANCHORS[:1], special_tokens=False)
    seam = _Seam(context.tokenizer, before, len(before))
    return _fitting(context, seam, seam.read(()) + text, text)


def _ends_known(context: AdaptContext, ids: Ids) -> bool:
    """True unless the last token stands for unknown text, of which more may follow."""
    unknown = context.tokenizer.unk_token_id
    return unknown is None or ids[-1:] != (unknown,)


def _begins_a_token(context: AdaptContext, prompt: Ids, known: PromptText, text: str) -> bool:
    """True if the first visible character of the text already adds a token to the prompt."""
    spaces = len(text) - len(text.lstrip())
    (ids,) = context.encode([known.text + text[: spaces + 1]], special_tokens=known.special_tokens)
    return len(ids) > len(prompt) and ids[: len(prompt)] == prompt


def _after_others(seam: _Seam, whole: Ids, border: int, name: str) -> Continuation:
    """The rest of the one text, which has other tokens for the end of the prompt."""
    there, alone = seam.listed(whole, border)
    note = (
        f"the prompt ends with {alone} on its own, but with {there} before the {name}; the {name} is scored after "
        f"{alone}"
    )
    ids = whole[border:]
    if seam.read(ids) != seam.read_instead(whole):
        note += f", so that the model reads {quoted(seam.read(ids))}"
    return Continuation(ids, note)


def _across(context: AdaptContext, seam: _Seam, whole: Ids, known: PromptText, name: str, text: str) -> Continuation:
    """Tokens for a text that begins inside a token of the one text."""
    # A token for unknown text may have swallowed the border, and does not show what it reads.
    unknown = context.tokenizer.unk_token_id in whole[max(0, seam.shared - 1) :]
    wanted = seam.read(()) + text if unknown else seam.read_instead(whole)
    ids = _fitting(context, seam, wanted, text)
    if not ids:
        return Continuation(())
    there = seam.crossing(whole)
    instead = f"has {there} there" if there else "has no tokens but the prompt's"
    note = f"no token begins where the {name} begins (the whole text {instead}); the {name} is scored as "
    note += seam.shown(ids)
    if not unknown and seam.read(ids) != wanted:
        note += f", which reads {quoted(seam.read(ids))} after the prompt"
    if known.text[-1:].isspace() and not text[0].isspace():
        note += f"; white space at the end of the prompt belongs at the beginning of the {name}"
    return Continuation(ids, note)


def _fitting(context: AdaptContext, seam: _Seam, wanted: str, text: str) -> Ids:
    """The first tokens of a text that read right after the prompt, or else the closest; none if there are no tokens."""
    found: list[tuple[int, Ids]] = []
    for ids in _in_the_middle(context, seam.read(()).rstrip()[-1:], text):
        reading = seam.read(ids)
        if reading == wanted:
            return ids
        found.append((abs(len(reading) - len(wanted)), ids))
    return min(found, key=lambda one: one[0], default=(0, ()))[1]


def _in_the_middle(context: AdaptContext, last: str, text: str) -> Iterator[Ids]:
    """The tokens of a text alone, then those after other characters, if a token begins there."""
    (alone,) = context.encode([text], special_tokens=False)
    if alone:
        yield alone
    for anchor in dict.fromkeys((last, *ANCHORS) if last else ANCHORS):
        before, both = context.encode([anchor, anchor + text], special_tokens=False)
        begins = both[: len(before)] == before and len(both) > len(before)
        if before and begins and _ends_known(context, before):
            yield both[len(before) :]


class _Seam:
    """The end of a prompt, where a text is to follow.

    Args:
        tokenizer: decodes tokens.
        prompt: the prompt's tokens.
        shared: number of tokens at the beginning that the one text shares with the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Ids, shared: int) -> None:
        self.shared = shared
        self._tokenizer = tokenizer
        self._prompt = prompt
        # What follows is read together with a few tokens before it, because they affect how it is decoded.
        self._start = max(0, shared - CONTEXT)

    def read(self, ids: Sequence[int]) -> str:
        """The text of the end of the prompt, followed by these tokens."""
        return self._decoded((*self._prompt[self._start :], *ids))

    def read_instead(self, whole: Sequence[int]) -> str:
        """The text of the same place in the tokens of the one text."""
        return self._decoded(whole[self._start :])

    def border(self, whole: Ids) -> int:
        """Number of tokens of the one text that make up exactly the prompt; 0 if there are none."""
        stop = self.end_of_crossing(whole)
        for count in range(self.shared + 1, min(stop, len(whole) - 1) + 1):
            known = whole[count - 1] != self._tokenizer.unk_token_id
            if known and self.read_instead(whole[:count]) == self.read(()):
                return count
        return 0

    def end_of_crossing(self, whole: Ids) -> int:
        """Number of tokens of the one text up to the first that goes beyond the prompt."""
        length = len(self.read(()))
        counts = range(self.shared + 1, len(whole) + 1)
        return next((n for n in counts if len(self.read_instead(whole[:n])) > length), len(whole))

    def shown(self, ids: Ids) -> str:
        """The texts of tokens that follow the prompt."""
        return _listed(token_texts(self._tokenizer, (*self._prompt, *ids), len(self._prompt)))

    def crossing(self, whole: Ids) -> str:
        """The texts of the tokens of the one text that are not the prompt's, up to the first that goes beyond it."""
        return _listed(token_texts(self._tokenizer, whole[: self.end_of_crossing(whole)], self.shared))

    def listed(self, whole: Ids, border: int) -> tuple[str, str]:
        """The tokens of the one text up to a border, and those of the prompt, without those that are shared."""
        both = whole[:border], self._prompt
        there, alone = (_listed(token_texts(self._tokenizer, ids, self.shared)) for ids in both)
        if there == alone:  # they differ in what is not text, such as the mark of the end of a word
            there, alone = (_listed(self._tokenizer.convert_ids_to_tokens(list(ids[self.shared :]))) for ids in both)
        return there, alone

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _listed(texts: Sequence[str]) -> str:
    more = " …" if len(texts) > SHOWN else ""
    return " ".join(quoted(text, LONGEST) for text in texts[:SHOWN]) + more
