"""Table of the terminal view with the step scores of each target token."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from apportion.errors import counted
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.labels import ellipsis, token_labels
from apportion_plugins.visualizers.pen import Pen
from apportion_plugins.visualizers.steps import step_rows

__all__ = ["step_table"]

MOST_TOKENS = 40
TOKEN_COLUMNS = 20


def step_table(attribution: Attribution, pen: Pen) -> tuple[Table, list[str]]:
    """A row for each target token, with a column for each step score; and notes on what is omitted."""
    rows, tokens = step_rows(attribution), token_labels(attribution.target_tokens)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("target token", no_wrap=True)
    for row in rows:
        table.add_column(Text(pen.say(row.title)), justify="right", vertical="bottom", overflow="fold")
    columns = [[Text(pen.say(text)) for text in row.texts] for row in rows]
    for i, token in enumerate(tokens[:MOST_TOKENS]):
        table.add_row(Text(pen.cell(ellipsis(token, TOKEN_COLUMNS))), *(column[i] for column in columns))
    left = len(tokens) - MOST_TOKENS
    return table, [f"The step scores of {counted(left, 'more target token')} are omitted."] if left > 0 else []
