"""A target whose tokens are features, as views show it."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.protocols.features import Segment
from apportion.results.attribution import Attribution

__all__ = ["HATCHED", "first_of_target", "target_segments"]

HATCHED = "Hatched: a token of the target cannot affect itself or what comes before it."


def target_segments(attribution: Attribution) -> tuple[Segment, ...]:
    """The target as spans after an arrow, each token with its feature, but for the last.

    Empty if its tokens are not features.
    """
    if not attribution.generated_features:
        return ()
    first, last = attribution.prompt_part.stop, len(attribution.target_tokens) - 1
    tokens = enumerate(attribution.target_tokens)
    arrow = Segment("→" if attribution.target_tokens[0][:1].isspace() else "→ ")
    return (arrow, *(Segment(text, first + place if place < last else None) for place, text in tokens))


def first_of_target(attribution: Attribution, rows: Sequence[int]) -> int | None:
    """Place of the first target token among these features; ``None`` unless they are parts of the prompt, then tokens.

    Args:
        attribution: the result.
        rows: indices of the features that are shown, in order.
    """
    own = [attribution.features[i].generated is not None for i in rows]
    return own.index(True) if True in own and not own[0] and own == sorted(own) else None
