"""HTML view of evaluations: a table of metrics."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.evaluation import Evaluation
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.evaluation_facts import (
    cost_columns,
    estimands,
    evaluation_facts,
    metric_columns,
    metric_table,
)
from apportion_plugins.visualizers.labels import quotable
from apportion_plugins.visualizers.names import evaluation_names

__all__ = ["evaluation_page"]


def evaluation_page(evaluations: Sequence[Evaluation]) -> HtmlView:
    """The measurements of evaluations of one target."""
    one, names = evaluations[0], evaluation_names(evaluations)
    against = "" if one.contrast is None else f" against {parts.quotation(quotable(one.contrast))}"
    facts = [f"{name}: {text}" if name != "note" else text for name, text in evaluation_facts(evaluations)]
    return parts.page(
        f"Faithfulness: {', '.join(names)}",
        [
            '<p class="apn-title">Faithfulness</p>',
            f'<p><span class="apn-soft">Target</span> {parts.quotation(quotable(one.target))}{against}</p>',
            *(parts.soft(f"{name}: {text}") for name, text in estimands(evaluations)),
            _of_one(one) if len(evaluations) == 1 else _of_several(evaluations, names),
            *map(parts.soft, facts),
        ],
    )


def _of_one(one: Evaluation) -> str:
    """A row for each metric."""
    table = metric_table(one)
    rows = [
        parts.row_head(parts.piece(metric))
        + parts.cell(f'<span class="apn-whole">{better}</span>')
        + "".join(map(parts.number, cells))
        for metric, better, cells in table.rows
    ]
    return parts.table(parts.column_heads(["metric", "better"], table.heads), rows)


def _of_several(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """A row for each result: its cost, and its metrics."""
    groups = [cost_columns(evaluations), *metric_columns(evaluations)]
    columns = [column for group in groups for column in group]
    # In stacked tables, a number stands beside the head of its column alone.
    beside = [column.head if k == 0 or not n else f"{group[0].head} {column.head}" for n, group in enumerate(groups)
              for k, column in enumerate(group)]  # fmt: skip
    rows = [
        parts.row_head(parts.label(name))
        + "".join(parts.number(column.cells[i], head) for column, head in zip(columns, beside, strict=True))
        for i, name in enumerate(names)
    ]
    return parts.table(parts.column_heads(["result"], [column.head for column in columns]), rows, parts.STACKED)
