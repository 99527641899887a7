"""Attributions side by side: their values, and the agreement of their rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing, shown
from apportion.options import whole_number
from apportion.phrases import quoted
from apportion.results.attribution import Attribution
from apportion.results.display import as_html, print_view, rendered
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

    Results of different methods estimate different quantities, some in different units. Only their rankings are
    compared: by signed values or, if one of a pair has magnitudes without signs, by the magnitudes of both.

    Attributes:
        results: at least one.
        token: position of the target token whose attributions are compared; ``None`` for the whole target.

    Raises:
        InputError: there are no results, they differ in features, target or contrast, or there is no such token.
    """

    results: Sequence[Attribution]
    token: int | None = None

    def __post_init__(self) -> None:
        if not self.results:
            raise InputError("The list of results must not be empty.")
        if self.token is not None:
            self._check_token(self.token)
        for what, of in _ALIKE.items():
            different = list(dict.fromkeys(map(of, self.results)))
            if len(different) > 1:
                raise InputError(
                    f"These results differ in their {what}: {_difference(*different[:2])}. Compare attributions of one "
                    "prompt and target."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each result: its method, and other facts that tell it apart, such as the estimand or the seed.

        Results of one method under several fills of pictures are named after the fills.
        """
        facts = [naming_facts(one.provenance, one.estimand, one.pictures) for one in self.results]
        methods, fills = ({fact[column] for fact in facts} for column in (0, 1))
        if len(methods) == 1 and len(fills) == len(facts) > 1:
            return tuple(fact[1] or "no picture" for fact in facts)
        return tuple(distinct_names(facts))

    @property
    def rank_correlation(self) -> Float64[Array, "R R"]:
        """Spearman's rank correlation of each pair of results: of their values, or of their magnitudes.

        Magnitudes are compared if either result has no signs (``signed`` of ``Attribution``).
        """
        found = [[self._correlation(i, j) for j in range(len(self.results))] for i in range(len(self.results))]
        return np.array(found)

    def top_overlap(self, k: int = TOP) -> Float64[Array, "R R"]:
        """Share of the k features of largest magnitude that each pair of results has in common.

        Raises:
            InputError: k is not a whole number of at least 1.
        """
        size = whole_number("k", k, least=1)
        return np.array([[top_overlap(a, b, size) for b in self.values] for a in self.values])

    @property
    def values(self) -> Float64[Array, "R F"]:
        """The values that are compared, one row per result, each in its own unit."""
        rows = [one.values if self.token is None else one.token_values[self.token] for one in self.results]
        return np.array(rows, dtype=np.float64)

    @property
    def std_errors(self) -> tuple[Float64[Array, " F"] | None, ...]:
        """Standard errors of each result's ``values``; ``None`` for exact ones."""
        if self.token is None:
            return tuple(one.std_error for one in self.results)
        return tuple(None if one.token_std_error is None else one.token_std_error[self.token] for one in self.results)

    @property
    def tokens(self) -> tuple[ResultComparison, ...]:
        """The comparison for each target token: ``[one.rank_correlation for one in comparison.tokens]``.

        Raises:
            InputError: the results have different target tokens, because they come from different tokenizers.
        """
        self._check_token(0)
        return tuple(replace(self, token=t) for t in range(len(self.results[0].target_tokens)))

    def plot(self, view: str = "bar", **options: Any) -> Any:
        """Draw the results side by side: a column of bars for each, and below them the agreement of all pairs.

        Args:
            view: a visualizer that can draw a comparison, such as ``"bar"``.
            **options: options of the view, for ``"bar"``: ``scale="own"`` or ``"unit"``, ``k``, ``max_features``,
                ``title``, ``labels``, ``size`` and ``dpi``; unknown ones are rejected.

        Returns:
            The view; a matplotlib ``Figure`` for ``"bar"``.

        Raises:
            UnknownNameError: there is no such view.
            InputError: the view has no such option, or cannot draw it in this ``size``.
            ResultError: the view cannot show a comparison.
        """
        return rendered(self.results[0].plugins, view, "render_comparison", self, **options)

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
        return dataframe(columns | dict(zip(self.names, self.values, strict=True)))

    def _repr_html_(self) -> str:
        return self.to_html().fragment

    def __repr__(self) -> str:
        return f"ResultComparison({listing(self.names)})"

    def _correlation(self, i: int, j: int) -> float:
        a, b = self.values[i], self.values[j]
        if not (self.results[i].signed and self.results[j].signed):
            a, b = np.abs(a), np.abs(b)
        return rank_correlation(a, b)

    def _check_token(self, token: object) -> None:
        different = list(dict.fromkeys(one.target_tokens for one in self.results))
        if len(different) > 1:
            raise InputError(
                "These results have different target tokens, because their models have different tokenizers. Compare "
                "them for the whole target."
            )
        n = len(different[0])
        if type(token) is not int or not 0 <= token < n:
            raise InputError(f"token={shown(token)} must be a position in the target: from 0 to {n - 1}, or None.")
        without = [one.provenance.method for one in self.results if np.isnan(one.token_values[token]).any()]
        if without:
            raise InputError(
                f"There are no values of single target tokens in the results of {listing(without)}, which scored the "
                "whole target alone."
            )


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
