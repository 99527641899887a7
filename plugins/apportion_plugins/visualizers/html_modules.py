"""Tables of the HTML view of a result: the values of modules, layers × features."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution
from apportion.results.modules import module_values
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import SHORT_COLUMNS
from apportion_plugins.visualizers.module_panels import Panel, panels_of
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import colour_limit

__all__ = ["module_tables"]


def module_tables(attribution: Attribution, rows: Sequence[int], max_cells: int) -> list[str]:
    """One table for each module that the layers have, folded; a note if there are too many cells.

    Args:
        attribution: a result with values of modules.
        rows: the features to show.
        max_cells: maximum number of cells.
    """
    panels, values = panels_of(attribution.extras["modules"]), module_values(attribution.extras)[:, list(rows)]
    if values.size > max_cells:
        return [
            parts.soft(
                f"The tables of {len(values)} modules × {len(rows)} features are omitted: {values.size:,} cells exceed "
                f"max_cells={max_cells:,}."
            )
        ]
    names = [parts.label(attribution.features[i].name, SHORT_COLUMNS) for i in rows]
    heads = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in names)
    return [_folded(attribution, panel, values[list(panel.rows)], heads) for panel in panels]


def _folded(attribution: Attribution, panel: Panel, values: Float64[np.ndarray, "R F"], heads: str) -> str:
    signed, limit = attribution.signed, colour_limit(values)
    numbers = Numbers(values.ravel(), digits=2, signed=signed)
    lines = []
    for label, row in zip(panel.labels, values, strict=True):
        cells = [
            f'<td class="{colour_class(float(value) / limit, signed=signed)}">{numbers.signed(float(value))}</td>'
            for value in row
        ]
        lines.append(parts.row_head(parts.piece(label)) + "".join(cells))
    most = f"{'±' if signed else ''}{Numbers([limit]).plain(limit)}"
    what = f"{escape(panel.name)} of each layer" if panel.name else "Modules"
    caption = f"{what} ({escape(attribution.unit)}; the strongest colours are {most})"
    return f"<details><summary>{caption}</summary>{parts.table(heads, lines, 'apn-tokens')}</details>"
