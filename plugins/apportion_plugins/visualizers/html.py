"""HTML view: the coloured prompt and tables, for notebooks and files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.facts import contrast_text, details, summary, target_text
from apportion_plugins.visualizers.html_style import colour_class, style_sheet
from apportion_plugins.visualizers.labels import one_line, prose, text_is_name, token_labels
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers, half_widths
from apportion_plugins.visualizers.palette import colour_limit, strengths
from apportion_plugins.visualizers.selection import check_limit, table_rows

__all__ = ["Html"]

_PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
</head>
<body>
{body}
</body>
</html>
"""


class Html:
    """Self-contained HTML without scripts or external resources, light or dark like the reader's system."""

    def render(
        self,
        attribution: Attribution,
        *,
        sort: bool = False,
        max_features: int | None = None,
        max_cells: int = 5000,
        page: bool = False,
    ) -> str:
        """Render the HTML.

        Args:
            attribution: the result.
            sort: sort the tables by magnitude, largest first, instead of prompt order.
            max_features: maximum number of table rows, by magnitude; a note says how many are omitted. ``None`` for
                all. The prompt is always coloured in full.
            max_cells: maximum number of cells in the table of target tokens; a larger table is omitted with a note.
            page: return a complete document with head and title. The default is a fragment that can be embedded in
                notebooks and other pages (and that browsers can open, too).

        Returns:
            The HTML; write it to a file as UTF-8.

        Raises:
            InputError: a limit is not a positive whole number.
        """
        check_limit("max_cells", max_cells)
        rows, hidden = table_rows(np.asarray(attribution.values), max_features, sort=sort)
        view = _View(attribution, rows)
        parts = [*view.header(), view.prompt(), view.table(), *map(_soft, hidden), *view.tokens(max_cells)]
        body = "\n".join(['<div class="apn-view">', style_sheet(), *parts, *view.footer(), "</div>"])
        if not page:
            # A browser that opens the fragment as a file needs to know its encoding.
            return f'<meta charset="utf-8">{body}'
        return _PAGE.format(title=escape(f"{attribution.estimand}: {view.target}"), body=body)


@dataclass(frozen=True)
class _View:
    """Parts of the view of a result; ``rows`` are the features in its tables."""

    attribution: Attribution
    rows: Sequence[int]

    @property
    def target(self) -> str:
        return target_text(self.attribution)

    def header(self) -> list[str]:
        attribution = self.attribution
        limit = colour_limit(attribution.values)
        most = Numbers([limit]).plain(limit)
        model = one_line(attribution.provenance.model or "?")
        return [
            f'<p class="apn-title">{escape(attribution.estimand)}</p>',
            f'<p><span class="apn-soft">Target</span> “<bdi class="apn-target">{escape(self.target)}</bdi>” '
            f'{self._against()}<span class="apn-soft">· model</span> <bdi>{escape(model)}</bdi></p>',
            f'<p class="apn-soft">−{most} lowers the target\'s score <span class="apn-key"></span> '
            f"+{most} {escape(attribution.unit)} raises it</p>",
        ]

    def _against(self) -> str:
        if self.attribution.provenance.contrast is None:
            return ""
        return f'<span class="apn-soft">against</span> “<bdi>{escape(contrast_text(self.attribution))}</bdi>” '

    def prompt(self) -> str:
        """The prompt; all segments of a feature have its colour and tooltip.

        They are not isolated from each other, because that would break up words with joined letters.
        """
        strength = strengths(np.asarray(self.attribution.values))
        pieces = []
        for segment in self.attribution.segments:
            text = prose(segment.text)
            if segment.feature is None:
                pieces.append(f'<span class="apn-kept">{escape(text)}</span>')
                continue
            # A line break that is (part of) a feature must be visible.
            text = escape(text.replace("\n", "⏎\n"))
            kind, tip = colour_class(float(strength[segment.feature])), self._tip(segment.feature)
            pieces.append(f'<span class="{kind}" title="{tip}">{text}</span>')
        return f'<div class="apn-prompt" dir="auto">{"".join(pieces)}</div>' if pieces else ""

    def _tip(self, i: int) -> str:
        attribution, half = self.attribution, half_widths(self.attribution)
        numbers = Numbers(attribution.values)
        error = "" if half is None else f" ± {numbers.plain(half[i])}"
        text = f"{numbers.signed(attribution.values[i])}{error} {attribution.unit}"
        return escape(f"{one_line(attribution.features[i].name)}: {text}")

    def table(self) -> str:
        """Feature, text, replacement, attribution, error, bar."""
        attribution, half = self.attribution, half_widths(self.attribution)
        features = [attribution.features[i] for i in self.rows]
        numbers, strength = Numbers(attribution.values), strengths(np.asarray(attribution.values))
        texts = not all(map(text_is_name, features))
        baselines = any(feature.baseline for feature in features)
        head = ["feature", *(["text"] if texts else []), *(["replaced by"] if baselines else [])]
        figures = [escape(attribution.unit), *([] if half is None else ["±"]), ""]
        lines = []
        for i, feature in zip(self.rows, features, strict=True):
            shown = [feature.text] * texts + [feature.baseline or "(removed)"] * baselines
            cells = [_head(feature.name), *(f"<td>{_piece(text)}</td>" for text in shown)]
            cells.append(_number(numbers.signed(attribution.values[i])))
            if half is not None:
                cells.append(_number(numbers.plain(half[i])))
            lines.append("".join([*cells, _bar(float(strength[i]))]))
        heads = [f"<th>{name}</th>" for name in head] + [f'<th class="apn-number">{name}</th>' for name in figures]
        return _table("apn-table", "".join(heads), lines)

    def tokens(self, max_cells: int) -> list[str]:
        """Table of features × target tokens, or a note if it is too large."""
        attribution = self.attribution
        labels = token_labels(attribution.target_tokens)
        size = len(labels) * len(self.rows)
        if size > max_cells:
            return [
                _soft(
                    f"The table of {len(self.rows)} features × {len(labels)} target tokens is omitted: "
                    f"{size:,} cells exceed max_cells={max_cells:,}."
                )
            ]
        if not size:
            return []
        cells = np.asarray(attribution.token_values).T[list(self.rows)]
        limit = colour_limit(cells)
        most = Numbers([limit]).plain(limit)
        heads = "".join(f"<th>{_piece(label)}</th>" for label in labels)
        numbers = Numbers(cells.ravel(), digits=2)
        pairs = zip(self.rows, cells, strict=True)
        lines = [self._token_row(i, row, limit, labels, numbers) for i, row in pairs]
        caption = f"Each target token ({attribution.unit}; the strongest colours are ±{most})"
        return [_soft(caption), _table("apn-table apn-tokens", f"<th></th>{heads}", lines)]

    def _token_row(self, i: int, row: np.ndarray, limit: float, labels: Sequence[str], numbers: Numbers) -> str:
        attribution = self.attribution
        errors = attribution.token_std_error
        name = one_line(attribution.features[i].name)
        cells = []
        for t, (value, label) in enumerate(zip(row, labels, strict=True)):
            exact = Numbers([value])
            error = "" if errors is None else f" ± {exact.plain(INTERVAL * float(errors[t, i]))}"
            tip = escape(f"{name} → {label}: {exact.signed(value)}{error} {attribution.unit}")
            kind = colour_class(float(value) / limit)
            cells.append(f'<td class="{kind}" title="{tip}">{numbers.signed(value)}</td>')
        return _head(attribution.features[i].name) + "".join(cells)

    def footer(self) -> list[str]:
        """Score and notes, followed by all facts in a collapsible section."""
        facts = summary(self.attribution)
        seen = [f"Score: {text}" if name == "score" else text for name, text in facts if name in ("score", "note")]
        lines = [f"{_head(name)}<td>{_piece(text)}</td>" for name, text in [*facts, *details(self.attribution)]]
        fold = _table("apn-table apn-facts", "", lines)
        return [*map(_soft, seen), f"<details><summary>Provenance</summary>{fold}</details>"]


def _soft(text: str) -> str:
    return f'<p class="apn-soft">{escape(one_line(text))}</p>'


def _piece(text: str) -> str:
    """Text whose direction is isolated from its surroundings."""
    return f"<bdi>{escape(one_line(text))}</bdi>"


def _head(text: str) -> str:
    return f'<th scope="row">{_piece(text)}</th>'


def _number(text: str) -> str:
    return f'<td class="apn-number">{text}</td>'


def _bar(strength: float) -> str:
    if np.isnan(strength):
        return '<td class="apn-bars"></td>'
    width = 50 * abs(strength)
    left = 50 - width if strength < 0 else 50.0
    kind = colour_class(0.75 if strength > 0 else -0.75)
    bar = f'<i class="{kind}" style="left: {left:.2f}%; width: {width:.2f}%"></i>'
    return f'<td class="apn-bars" aria-hidden="true"><span class="apn-bar">{bar}</span></td>'


def _table(kind: str, head: str, rows: Iterable[str]) -> str:
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="apn-scroll"><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'
