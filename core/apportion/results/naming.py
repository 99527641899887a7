"""Short names for results that are shown side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from apportion.protocols.pictures import Picture
from apportion.results.provenance import Provenance

__all__ = ["distinct_names", "naming_facts"]


def naming_facts(made: Provenance, estimand: str, pictures: Sequence[Picture] = ()) -> tuple[str, ...]:
    """The method, and what else may tell two results apart, the most important first."""
    return (
        made.method,
        ", ".join(dict.fromkeys(one.fill for one in pictures)),
        estimand,
        made.model,
        made.target_fn,
        "no budget" if made.budget is None else f"budget {made.budget}",
        f"seed {made.seed}",
    )


def distinct_names(facts: Sequence[Sequence[str]]) -> list[str]:
    """A unique name for each thing, from facts in the order of their importance.

    A name is the first fact. Where several things share it, facts that tell them apart follow in parentheses, and a
    number if there are none.

    Args:
        facts: the facts of each thing, as many for each.
    """
    chosen: list[tuple[str, ...]] = [(one[0],) for one in facts]
    for column in list(zip(*facts, strict=True))[1:]:
        values = [{v for other, v in zip(chosen, column, strict=True) if other == one} for one in chosen]
        found = zip(chosen, column, values, strict=True)
        chosen = [(*one, fact) if len(different) > 1 else one for one, fact, different in found]
    names = [f"{one[0]} ({', '.join(filter(None, one[1:]))})" if any(one[1:]) else one[0] for one in chosen]
    often, so_far = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        so_far[name] += 1
        numbered.append(f"{name} #{so_far[name]}" if often[name] > 1 else name)
    return numbered
