"""HTML view of evaluations: a table of metrics."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.evaluation import Evaluation
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.evaluation_facts import estimands, evaluation_facts, metric_table
from apportion_plugins.visualizers.labels import quotable
from apportion_plugins.visualizers.names import evaluation_names

__all__ = ["evaluation_page"]


def evaluation_page(evaluations: Sequence[Evaluation]) -> HtmlView:
    """The measurements of evaluations of one target."""
    one, names = evaluations[0], evaluation_names(evaluations)
    against = "" if one.contrast is None else f" against {parts.quotation(quotable(one.contrast))}"
    table = metric_table(evaluations)
    rows = [
        parts.row_head(parts.piece(metric))
        + parts.cell(f'<span class="apn-whole">{better}</span>')
        + "".join(map(parts.number, cells, table.heads))
        for metric, better, cells in table.rows
    ]
    facts = [f"{name}: {text}" if name != "note" else text for name, text in evaluation_facts(evaluations)]
    return parts.page(
        f"Faithfulness: {', '.join(names)}",
        [
            '<p class="apn-title">Faithfulness</p>',
            f'<p><span class="apn-soft">Target</span> {parts.quotation(quotable(one.target))}{against}</p>',
            *(parts.soft(f"{name}: {text}") for name, text in estimands(evaluations)),
            parts.table(
                parts.column_heads(["metric", "better"], table.heads),
                rows,
                parts.STACKED if len(evaluations) > 1 else "",
            ),
            *map(parts.soft, facts),
        ],
    )
