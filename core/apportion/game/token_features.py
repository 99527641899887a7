"""The feature that each token of the full prompt belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError, PluginError, counted, listing
from apportion.protocols.features import Segment
from apportion.rendering.token_texts import whole_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apportion.protocols.inputs import InputAdapter
    from apportion.protocols.request import Request

__all__ = ["features_of_tokens", "token_owners"]

Owners = tuple[int | None, ...]
Span = tuple[int, int]

MOST_NAMED = 5


def token_owners(request: Request, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> Owners:
    """The feature of each token of a request's full prompt; the result gets a note on tokens that two features share.

    Raises:
        CapabilityError, PluginError: as for ``features_of_tokens``.
    """
    found = _matched(request.adapter, tokenizer, prompt_ids)
    if found.shared:
        tokens = listing(map(repr, dict.fromkeys(found.shared)), MOST_NAMED)
        request.renderer.note(
            f"a token that lies in two features counts for the one that has more of its characters: {tokens}"
        )
    return found.owners


def features_of_tokens(adapter: InputAdapter, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> Owners:
    """The feature of each token: as the adapter states it, or of the segment that contains most of the token's text.

    White space belongs to the text that it shares a token with. Tokens of text between features, and the tokenizer's
    special tokens, belong to no feature.

    Args:
        adapter: the prompt's adapter, with ``segments`` or ``feature_of_token``.
        tokenizer: the tokenizer that encoded the prompt.
        prompt_ids: the prompt with all features, special tokens included.

    Returns:
        The index of a feature, or ``None``, for each token. Each feature has at least one token.

    Raises:
        CapabilityError: the prompt's tokens cannot be matched with its text, or a feature has no token of its own:
            its score would be 0, whatever it does.
        PluginError: the adapter's ``feature_of_token`` does not fit the prompt.
    """
    return _matched(adapter, tokenizer, prompt_ids).owners


@dataclass(frozen=True, slots=True)
class _Matched:
    """The feature of each token, and the texts of tokens whose visible characters lie in several features."""

    owners: Owners
    shared: Sequence[str] = ()


def _matched(adapter: InputAdapter, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> _Matched:
    stated = getattr(adapter, "feature_of_token", None)
    if stated is not None:
        return _Matched(_checked(adapter, tuple(stated), len(prompt_ids)))
    segments = tuple(getattr(adapter, "segments", ()))
    if not segments:
        raise _unknown("the input adapter provides no segments")
    text = "".join(segment.text for segment in segments)
    characters = [(segment.feature, not char.isspace()) for segment in segments for char in segment.text]
    own = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    before = next((i for i in range(len(prompt_ids) - len(own) + 1) if list(prompt_ids[i : i + len(own)]) == own), None)
    if before is None:
        raise _unknown("the text of its segments has other tokens than the prompt")
    after = len(prompt_ids) - len(own) - before
    lacking: list[int] = []
    for spans in _alignments(tokenizer, text, own):
        inside = [_owner(characters[start:stop]) for start, stop in spans]
        lacking = [i for i in _of_prompt(adapter) if i not in inside]
        if not lacking:
            shared = [text[start:stop] for start, stop in spans if _is_shared(characters[start:stop])]
            return _Matched((*[None] * before, *inside, *[None] * after), shared)
    if not lacking:
        raise _unknown("the tokenizer provides no offsets, and its tokens do not decode to the text")
    raise _without_token(adapter, segments, lacking)


def _of_prompt(adapter: InputAdapter) -> list[int]:
    """The features that are parts of the prompt, and not of the text that the model wrote after it."""
    return [i for i, feature in enumerate(adapter.features) if getattr(feature, "generated", None) is None]


def _alignments(tokenizer: PreTrainedTokenizerBase, text: str, ids: Sequence[int]) -> Iterator[list[Span]]:
    """The characters that each token stands for, found in different ways: by offsets, and by decoding."""
    if tokenizer.is_fast:
        yield list(tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])
    decoded = _decoded_spans(tokenizer, text, ids)
    if decoded is not None:
        yield decoded


def _decoded_spans(tokenizer: PreTrainedTokenizerBase, text: str, ids: Sequence[int]) -> list[Span] | None:
    """Spans of the decoded tokens, one after the other; ``None`` if they do not give the text, white space aside.

    Decoders drop or add spaces, in particular before the first token.
    """
    spans: list[Span] = []
    end = 0
    for size, piece in whole_texts(tokenizer, ids):
        visible = piece.strip()
        start = end
        while start < len(text) and text[start].isspace() and not text.startswith(piece, start):
            start += 1
        shown = piece if text.startswith(piece, start) else visible
        if not text.startswith(shown, start):
            return None
        end = start + len(shown)
        spans += [(start, end)] * size
    return spans if not text[end:].strip() else None


def _owner(chars: Sequence[tuple[int | None, bool]]) -> int | None:
    """The feature of most visible characters, or of most characters if all are white space; the first wins a tie."""
    seen = [feature for feature, visible in chars if visible] or [feature for feature, _ in chars]
    counts = {feature: seen.count(feature) for feature in dict.fromkeys(seen)}
    return max(counts, key=lambda feature: counts[feature]) if counts else None


def _is_shared(chars: Sequence[tuple[int | None, bool]]) -> bool:
    """True if visible characters belong to several features."""
    return len({feature for feature, visible in chars if visible and feature is not None}) > 1


def _checked(adapter: InputAdapter, owners: Owners, tokens: int) -> Owners:
    """The owners that an adapter states, if they fit the prompt."""
    if len(owners) != tokens:
        raise PluginError(
            f"The adapter {type(adapter).__name__} states the features of {counted(len(owners), 'token')} "
            f"(feature_of_token), but its prompt has {tokens}."
        )
    n = len(adapter.features)
    wrong = next((one for one in owners if one is not None and not (type(one) is int and 0 <= one < n)), None)
    if wrong is not None:
        raise PluginError(
            f"The adapter {type(adapter).__name__} states the feature {wrong!r} for a token (feature_of_token); it "
            f"must be None or from 0 to {n - 1}."
        )
    return owners


def _unknown(why: str) -> CapabilityError:
    return CapabilityError(
        f"The feature of each token of this prompt cannot be determined: {why}. Use Text(..., by='tokens'), whose "
        "features are tokens, or a method that only leaves out features, such as 'kernel_shap'."
    )


def _without_token(adapter: InputAdapter, segments: Sequence[Segment], lacking: Sequence[int]) -> CapabilityError:
    shown = {segment.feature for segment in segments if segment.text.strip()}
    absent = [i for i in lacking if i not in shown]
    names = listing((repr(adapter.features[i].name) for i in absent or lacking), MOST_NAMED)
    why = "have no text in the prompt, or it cannot be found there" if absent else "share their tokens with others"
    return CapabilityError(
        f"These features {why}: {names}. A method that scores tokens would give them 0, whatever they do. Use a "
        "method that leaves out features, such as 'kernel_shap', or larger features, or Text(..., by='tokens')."
    )
