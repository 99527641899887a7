"""Attributions side by side: their values, and the agreement of their rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing
from apportion.options import whole_number
from apportion.phrases import quoted
from apportion.results.attribution import Attribution
from apportion.results.display import as_html, print_view
from apportion.results.html_view import HtmlView
from apportion.results.naming import distinct_names, naming_facts
from apportion.results.ranking import TOP, rank_correlation, top_overlap
from apportion.results.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResultComparison"]

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class ResultComparison:
    """Attributions of one target to the same features, side by side: R results.

    Attributes:
        results: at least one.

    Raises:
        InputError: there are no results, or they differ in features, target or contrast.
    """

    results: Sequence[Attribution]

    def __post_init__(self) -> None:
        if not self.results:
            raise InputError("The list of results must not be empty.")
        for what, of in _ALIKE.items():
            different = list(dict.fromkeys(map(of, self.results)))
            if len(different) > 1:
                raise InputError(
                    f"These results differ in their {what}: {_difference(*different[:2])}. Compare attributions of one "
                    "prompt and target."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each result: its method, and other facts that tell it apart, such as the estimand or the seed."""
        return tuple(distinct_names([naming_facts(one.provenance, one.estimand) for one in self.results]))

    @property
    def rank_correlation(self) -> Float64[Array, "R R"]:
        """Spearman's rank correlation of the values of each pair of results."""
        return self._pairwise(rank_correlation)

    def top_overlap(self, k: int = TOP) -> Float64[Array, "R R"]:
        """Share of the k features of largest magnitude that each pair of results has in common.

        Raises:
            InputError: k is not a whole number of at least 1.
        """
        size = whole_number("k", k, least=1)
        return self._pairwise(lambda a, b: top_overlap(a, b, size))

    def show(self) -> None:
        """Print a table in the terminal, with a row per feature and a column per result, and the agreement of pairs."""
        print_view(self.results[0].plugins, "render_comparison", self)

    def to_html(self) -> HtmlView:
        """Convert to HTML: the same tables, which notebooks display and ``save`` writes to a file."""
        return as_html(self.results[0].plugins, "render_comparison", self)

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a pandas ``DataFrame``: one row per feature, and one column of values per result.

        Raises:
            ApportionError: pandas is not installed.
        """
        features = self.results[0].features
        columns = {"feature": [f.name for f in features], "text": [f.text for f in features]}
        return dataframe(columns | {n: r.values for n, r in zip(self.names, self.results, strict=True)})

    def _repr_html_(self) -> str:
        return self.to_html().fragment

    def __repr__(self) -> str:
        return f"ResultComparison({listing(self.names)})"

    def _pairwise(
        self, agreement: Callable[[Float64[Array, " F"], Float64[Array, " F"]], float]
    ) -> Float64[Array, "R R"]:
        values = [np.asarray(result.values) for result in self.results]
        return np.array([[agreement(a, b) for b in values] for a in values])


def _difference(one: object, other: object) -> str:
    """Two facts that differ, in words: of features, their number and the first that differs."""
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return " and ".join("none" if fact is None else quoted(str(fact)) for fact in (one, other))
    pairs = zip_longest(one, other)
    position, first = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    sizes = f"{len(one)} and {len(other)}" if len(one) != len(other) else f"{len(one)} each"
    # Names may be alike while the texts differ.
    column = 0 if None in first or first[0][0] != first[1][0] else 1
    named = " and ".join("none" if feature is None else quoted(feature[column]) for feature in first)
    return f"{sizes}, of which number {position + 1} is {named}"


_ALIKE: dict[str, Callable[[Attribution], object]] = {
    "features": lambda result: tuple((feature.name, feature.text) for feature in result.features),
    "target": lambda result: result.whole_target,
    "contrast": lambda result: result.provenance.contrast,
}
"""Facts that all results of a comparison share."""
