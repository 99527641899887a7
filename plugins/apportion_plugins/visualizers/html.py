"""HTML view: the coloured prompt and tables, for notebooks and files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.context_reliance import ContextReliance
from apportion.results.evaluation import Evaluation
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.facts import (
    contrast_text,
    details,
    estimand_of,
    meaning_of_signs,
    summary,
    target_text,
)
from apportion_plugins.visualizers.groups import has_groups
from apportion_plugins.visualizers.html_comparison import comparison_page
from apportion_plugins.visualizers.html_evaluation import evaluation_page
from apportion_plugins.visualizers.html_modules import module_tables
from apportion_plugins.visualizers.html_pictures import coloured_pictures
from apportion_plugins.visualizers.html_prompt import coloured_prompt
from apportion_plugins.visualizers.html_reliance import reliance_page
from apportion_plugins.visualizers.html_tables import feature_table, group_table, pair_table, token_table
from apportion_plugins.visualizers.module_panels import has_modules
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.pairs import has_pairs
from apportion_plugins.visualizers.palette import colour_limit
from apportion_plugins.visualizers.selection import check_limit, table_rows

__all__ = ["Html"]


class Html:
    """Self-contained HTML without scripts or external resources, light or dark like the reader's system."""

    def render(
        self,
        attribution: Attribution,
        *,
        sort: bool = False,
        max_features: int | None = 200,
        max_cells: int = 5000,
    ) -> HtmlView:
        """Render the HTML.

        Args:
            attribution: the result.
            sort: sort the tables by magnitude, largest first, instead of prompt order (or the tree of groups, if the
                method gave one).
            max_features: maximum number of table rows, by magnitude; a note says how many are omitted. ``None`` for
                all. The prompt is always coloured in full, its pictures included.
            max_cells: maximum number of cells in the table of target tokens, and in those of modules; larger tables are
                omitted with a note.

        Returns:
            HTML that notebooks display. As a string it is a whole page, which ``save("x.html")`` writes to a file; its
            ``fragment`` can be embedded in another page.

        Raises:
            InputError: a limit is not a positive whole number.
        """
        check_limit("max_cells", max_cells)
        rows, hidden = table_rows(np.asarray(attribution.values), max_features, sort=sort)
        if has_groups(attribution) and not sort:
            tables = group_table(attribution, max_features)
        else:
            tables = [feature_table(attribution, rows), *map(parts.soft, hidden)]
        if has_pairs(attribution):
            tables += pair_table(attribution)
        tables += token_table(attribution, rows, max_cells)
        if has_modules(attribution):
            tables += module_tables(attribution, rows, max_cells)
        title = f"{estimand_of(attribution)}: {target_text(attribution).strip()}"
        prompt = [*coloured_pictures(attribution), coloured_prompt(attribution)]
        return parts.page(title, [*_header(attribution), *prompt, *tables, *_footer(attribution)])

    def render_evaluations(self, evaluations: Sequence[Evaluation]) -> HtmlView:
        """Render a table of metrics, with columns for each evaluation.

        Args:
            evaluations: evaluations of the same target.
        """
        return evaluation_page(evaluations)

    def render_comparison(self, comparison: ResultComparison) -> HtmlView:
        """Render a table of values, with a column for each result.

        Args:
            comparison: results of the same target.
        """
        return comparison_page(comparison)

    def render_context_reliance(self, found: ContextReliance) -> HtmlView:
        """Render the output, the context, and the cues of each sensitive token.

        Args:
            found: the result.
        """
        return reliance_page(found)


def _header(attribution: Attribution) -> list[str]:
    limit = colour_limit(attribution.values)
    most, unit = Numbers([limit]).plain(limit), escape(attribution.unit)
    against = ""
    if attribution.provenance.contrast is not None:
        against = f'<span class="apn-soft">against</span> {parts.quotation(contrast_text(attribution))} '
    provenance = attribution.provenance
    model = parts.piece(provenance.model or "?")
    least, highest, kind = (f"−{most}", f"+{most}", "") if attribution.signed else ("0", most, " apn-m")
    key = f'<span class="apn-whole">{least} <span class="apn-key{kind}"></span> {highest}</span> {unit}'
    return [
        f'<p class="apn-title">{escape(estimand_of(attribution))}</p>',
        f'<p><span class="apn-soft">Target</span> {parts.quotation(target_text(attribution))} {against}'
        f'<span class="apn-soft">· model</span> {model}</p>',
        f'<p class="apn-soft">{key}</p>',
        parts.soft(meaning_of_signs(attribution)),
    ]


def _footer(attribution: Attribution) -> list[str]:
    """Score and notes, followed by all facts in a collapsible section."""
    facts = summary(attribution)
    seen = [f"Score: {text}" if name == "score" else text for name, text in facts if name in ("score", "note")]
    rows = [parts.row_head(parts.piece(k)) + parts.cell(parts.piece(v)) for k, v in [*facts, *details(attribution)]]
    fold = parts.table("", rows, "apn-facts")
    return [*map(parts.soft, seen), f"<details><summary>Provenance</summary>{fold}</details>"]
