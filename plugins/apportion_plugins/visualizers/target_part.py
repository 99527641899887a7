"""A part of the target: all of it, one token, or several in a row."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing, shown
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.labels import one_line, quotable, token_labels
from apportion_plugins.visualizers.pairs import Pairs, pairs_of
from apportion_plugins.visualizers.selection import part_of_target

__all__ = ["TargetPart", "pairs_of_part", "target_part"]


@dataclass(frozen=True)
class TargetPart:
    """A part of the target, and its values.

    Attributes:
        label: its name in the header.
        values: attribution of the part to each feature: the sum of the values of its tokens.
        tokens: positions of its tokens; ``None`` for the whole target.
    """

    label: str
    values: Float64[np.ndarray, " F"]
    tokens: range | None


def target_part(attribution: Attribution, token: object) -> TargetPart:
    """The part that a user chose.

    Args:
        attribution: the result.
        token: ``None`` for the whole target, the position or the text of a token, or the first position and the one
            after the last.

    Raises:
        InputError: there is no such part, or the tokens have no values of their own.
    """
    if token is None:
        return TargetPart("Target", np.asarray(attribution.values, dtype=np.float64), None)
    if not attribution.has_token_values:
        raise InputError(
            f"token={shown(token)}: this result has no values of target tokens; only the whole target was scored. "
            "Leave out token=."
        )
    chosen = _positions(attribution, token)
    values = np.asarray(attribution.token_values, dtype=np.float64)[chosen.start : chosen.stop].sum(axis=0)
    return TargetPart(_label(attribution, chosen), values, chosen)


def pairs_of_part(attribution: Attribution, part: TargetPart) -> Pairs:
    """The interactions of a part of the target; those of several tokens are added.

    Raises:
        ResultError: the result has no interactions.
    """
    if part.tokens is None:
        return pairs_of(attribution, None)
    found = [pairs_of(attribution, position) for position in part.tokens]
    if len(found) == 1:
        return found[0]
    # The errors of tokens are not independent, so that of their sum is unknown.
    return Pairs(found[0].index, part.label, part.values, None, np.sum([one.matrix for one in found], axis=0), None)


def _positions(attribution: Attribution, token: Any) -> range:
    tokens = attribution.target_tokens
    if isinstance(token, str):
        return _of_text(tokens, token)
    if _is_whole(token) and 0 <= token < len(tokens):
        return range(int(token), int(token) + 1)
    if isinstance(token, range) and token.step == 1:
        token = (token.start, token.stop)
    if isinstance(token, tuple | list) and len(token) == 2 and all(map(_is_whole, token)):
        start, stop = (int(one) for one in token)
        if 0 <= start < stop <= len(tokens):
            return range(start, stop)
    raise InputError(
        f"token={shown(token)} must be the position or the text of a target token, a pair (start, stop) of positions, "
        f"or None for the whole target: {_listed(tokens)}."
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _of_text(tokens: tuple[str, ...], text: str) -> range:
    """The token with this text; spaces around it need not be given."""
    places = [i for i, one in enumerate(tokens) if one == text]
    if not places:
        places = [i for i, one in enumerate(token_labels(tokens)) if one == one_line(text)]
    if len(places) > 1:
        raise InputError(
            f"{len(places)} target tokens are {text!r}; give the position of one of them: {listing(map(str, places))}."
        )
    if not places:
        raise InputError(f"token={shown(text)} is not a token of the target. Its tokens are {_listed(tokens)}.")
    return range(places[0], places[0] + 1)


def _listed(tokens: tuple[str, ...]) -> str:
    return listing(f"{i} {text!r}" for i, text in enumerate(tokens))


def _label(attribution: Attribution, chosen: range) -> str:
    if len(chosen) == 1:
        return part_of_target(attribution, chosen.start)
    if len(chosen) == len(attribution.target_tokens):
        return "All tokens of the target"
    names = quotable("".join(attribution.target_tokens[chosen.start : chosen.stop]))
    return f"Tokens {chosen.start} to {chosen.stop - 1}, “{names}”, of the target"
