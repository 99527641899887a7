"""HTML view of results side by side: a table of values, and the agreement of each pair."""

from __future__ import annotations

from collections.abc import Callable

from apportion.results.comparison import ResultComparison
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.comparison_facts import (
    FEW,
    about,
    comparison_notes,
    comparison_title,
    correlation_text,
    numbered,
    overlap_text,
    pair_rows,
    top_count,
    value_cells,
)
from apportion_plugins.visualizers.facts import contrast_text, target_text
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import one_line, text_is_name
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.selection import part_of_target

__all__ = ["comparison_page"]


def comparison_page(comparison: ResultComparison) -> HtmlView:
    """The values of results of one target, side by side."""
    results, names = comparison.results, numbered(comparison)
    one, title = results[0], comparison_title(comparison)
    against = "" if one.provenance.contrast is None else f" against {parts.quotation(contrast_text(one))}"
    kinds = [f"{name}: {about(each)}" for name, each in zip(names, results, strict=True)]
    shown = [] if comparison.token is None else [f"Shown: {part_of_target(one, comparison.token)}"]
    notes = ["Colours compare the values of one column.", *comparison_notes(comparison)]
    if any(errors is not None for errors in comparison.std_errors):
        notes.append(f"±: 95 % interval, {INTERVAL} standard errors of the sampling.")
    return parts.page(
        f"{title}: {target_text(one).strip()}",
        [
            f'<p class="apn-title">{title}</p>',
            f'<p><span class="apn-soft">Target</span> {parts.quotation(target_text(one))}{against}</p>',
            *map(parts.soft, [*shown, *kinds]),
            _values(comparison, names),
            *map(parts.soft, notes),
            *(_agreement(comparison, names) if len(results) > 1 else []),
        ],
    )


def _values(comparison: ResultComparison, names: list[str]) -> str:
    features = comparison.results[0].features
    has_texts = not all(map(text_is_name, features))
    units = [f"{name}, {one_line(each.unit)}" for name, each in zip(names, comparison.results, strict=True)]
    columns = [
        [
            parts.number(text, head, colour_class(float(strength), signed=result.signed))
            for text, strength in zip(value_cells(comparison, i), strengths(comparison.values[i]), strict=True)
        ]
        for i, (head, result) in enumerate(zip(units, comparison.results, strict=True))
    ]
    rows = []
    for i, feature in enumerate(features):
        texts = [parts.cell(parts.label(feature.text))] if has_texts else []
        rows.append("".join([parts.row_head(parts.label(feature.name)), *texts, *(column[i] for column in columns)]))
    return parts.table(parts.column_heads(["feature", *(["text"] if has_texts else [])], units), rows, parts.STACKED)


def _agreement(comparison: ResultComparison, names: list[str]) -> list[str]:
    """The agreement of each pair in a row or, of many results, as matrices."""
    if len(names) <= FEW:
        heads, pairs = pair_rows(comparison)
        rows = [
            parts.row_head(parts.piece(f"{names[i]} and {names[j]}")) + "".join(map(parts.number, cells, heads))
            for i, j, cells in pairs
        ]
        return [parts.table(parts.column_heads(["results"], heads), rows, parts.STACKED)]
    top, correlation, common = top_count(comparison), comparison.rank_correlation, comparison.top_overlap()

    def correlated(i: int, j: int) -> str:
        return parts.number(correlation_text(correlation[i, j]), colour=colour_class(float(correlation[i, j])))

    def shared(i: int, j: int) -> str:
        return parts.number(overlap_text(common[i, j], top), colour=colour_class(float(common[i, j]), signed=False))

    return [
        parts.soft("Rank correlation of each pair of results"),
        _matrix(names, correlated),
        parts.soft(f"Number of the top {top} features that each pair has in common"),
        _matrix(names, shared),
    ]


def _matrix(names: list[str], cell: Callable[[int, int], str]) -> str:
    """A table with a row and a numbered column for each result; the diagonal is empty."""
    numbers = range(len(names))
    rows = [
        parts.row_head(parts.label(name)) + "".join(parts.number("") if i == j else cell(i, j) for j in numbers)
        for i, name in enumerate(names)
    ]
    return parts.table(parts.column_heads(["result"], [str(i + 1) for i in numbers]), rows)
