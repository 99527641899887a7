"""HTML view of results side by side: a table of values, and the agreement of each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.comparison_facts import agreements, value_cells
from apportion_plugins.visualizers.facts import contrast_text, estimand_of, target_text
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import one_line, text_is_name
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.palette import strengths

__all__ = ["comparison_page"]


def comparison_page(comparison: ResultComparison) -> HtmlView:
    """The values of results of one target, side by side."""
    results, names = comparison.results, [one_line(name) for name in comparison.names]
    one = results[0]
    against = "" if one.provenance.contrast is None else f" against {parts.quotation(contrast_text(one))}"
    estimands = [f"{name}: {estimand_of(each)}" for name, each in zip(names, results, strict=True)]
    notes = ["Colours compare the values of one column."]
    if any(result.std_error is not None for result in results):
        notes.append(f"±: 95 % interval, {INTERVAL} standard errors of the sampling.")
    return parts.page(
        f"{len(results)} attributions: {target_text(one).strip()}",
        [
            f'<p class="apn-title">{len(results)} attributions compared</p>',
            f'<p><span class="apn-soft">Target</span> {parts.quotation(target_text(one))}{against}</p>',
            *map(parts.soft, estimands),
            _values(results, names),
            *map(parts.soft, notes),
            *([_agreement(comparison, names)] if len(results) > 1 else []),
        ],
    )


def _values(results: Sequence[Attribution], names: list[str]) -> str:
    features = results[0].features
    has_texts = not all(map(text_is_name, features))
    units = [f"{name}, {one_line(result.unit)}" for name, result in zip(names, results, strict=True)]
    columns = [
        [
            parts.number(text, head, colour_class(float(strength)))
            for text, strength in zip(value_cells(result), strengths(np.asarray(result.values)), strict=True)
        ]
        for head, result in zip(units, results, strict=True)
    ]
    rows = []
    for i, feature in enumerate(features):
        texts = [parts.cell(parts.label(feature.text))] if has_texts else []
        rows.append("".join([parts.row_head(parts.label(feature.name)), *texts, *(column[i] for column in columns)]))
    return parts.table(parts.column_heads(["feature", *(["text"] if has_texts else [])], units), rows, parts.STACKED)


def _agreement(comparison: ResultComparison, names: list[str]) -> str:
    heads, pairs = agreements(comparison)
    rows = [
        parts.row_head(parts.piece(f"{names[i]} and {names[j]}")) + "".join(map(parts.number, cells, heads))
        for i, j, cells in pairs
    ]
    return parts.table(parts.column_heads(["results"], heads), rows, parts.STACKED)
