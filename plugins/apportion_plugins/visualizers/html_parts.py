"""Pieces of HTML that all pages share: texts, tables, bars. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers.html_style import colour_class, style_sheet
from apportion_plugins.visualizers.labels import cut, ellipsis, one_line

__all__ = [
    "NAME_COLUMNS",
    "STACKED",
    "bar",
    "cell",
    "column_heads",
    "label",
    "number",
    "page",
    "piece",
    "quotation",
    "row_head",
    "soft",
    "table",
]

NAME_COLUMNS = 40
"""Longest name in a table, in columns of a terminal; the whole text is in the prompt."""
TITLE_COLUMNS = 80
STACKED = "apn-stacked"
"""Class of tables whose cells stand below each other on narrow screens."""


def page(title: str, parts: Iterable[str]) -> HtmlView:
    """The view made of these parts."""
    body = "\n".join(['<div class="apn-view">', style_sheet(), *parts, "</div>"])
    return HtmlView(body, cut(title, TITLE_COLUMNS))


def soft(text: str) -> str:
    """A paragraph that stays in the background."""
    return f'<p class="apn-soft">{escape(one_line(text))}</p>'


def piece(text: str) -> str:
    """Text whose direction is isolated from its surroundings."""
    return f"<bdi>{escape(one_line(text))}</bdi>"


def quotation(text: str) -> str:
    """A target or contrast between quotes."""
    return f'“<bdi class="apn-target" lang="">{escape(text)}</bdi>”'


def label(text: str, columns: int = NAME_COLUMNS) -> str:
    """A name, shortened at the end of a word."""
    return piece(ellipsis(one_line(text), columns))


def row_head(content: str, depth: int = 0) -> str:
    """The first cell of a row, indented ``depth`` times."""
    indent = f' style="padding-inline-start: {10 + 16 * depth}px"' if depth else ""
    return f'<th scope="row"{indent}>{content}</th>'


def cell(content: str) -> str:
    """A cell of text."""
    return f"<td>{content}</td>"


def number(text: str, head: str = "", colour: str = "") -> str:
    """A cell with a number, or something that stands for one.

    Args:
        text: the number.
        head: head of its column, which stands beside it in stacked tables on narrow screens.
        colour: class of its colour.
    """
    beside = f' data-head="{escape(head)}"' if head else ""
    return f'<td class="{f"apn-number {colour}".strip()}"{beside}>{escape(text)}</td>'


def bar(strength: float, *, signed: bool = True) -> str:
    """A cell with a bar for a strength from −1 to 1; magnitudes (``signed=False``) begin on the left."""
    if np.isnan(strength):
        return '<td class="apn-bars"></td>'
    width = (50 if signed else 100) * abs(strength)
    left = (50 - width if strength < 0 else 50.0) if signed else 0.0
    kind = colour_class(0.75 if strength > 0 else -0.75, signed=signed)
    line = "apn-bar" if signed else "apn-bar apn-from-left"
    drawn = f'<i class="{kind}" style="left: {left:.2f}%; width: {width:.2f}%"></i>'
    return f'<td class="apn-bars" aria-hidden="true"><span class="{line}">{drawn}</span></td>'


def column_heads(texts: Sequence[str], numbers: Sequence[str] = ()) -> str:
    """Heads of columns: first those of texts, then those of numbers."""
    heads = [f'<th scope="col">{piece(text)}</th>' for text in texts]
    return "".join([*heads, *(f'<th scope="col" class="apn-number">{escape(text)}</th>' for text in numbers)])


def table(head: str, rows: Iterable[str], kind: str = "") -> str:
    """A table that scrolls inside the page if it is wide.

    Args:
        head: cells of the head; empty for none.
        rows: cells of each row.
        kind: additional class, such as ``STACKED``.
    """
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    classes = f"apn-table {kind}".strip()
    return f'<div class="apn-scroll"><table class="{classes}">{top}<tbody>{body}</tbody></table></div>'
