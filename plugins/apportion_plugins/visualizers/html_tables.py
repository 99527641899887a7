"""Tables of the HTML view of a result: features, groups, interactions, target tokens."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Bool, Float64

from apportion.protocols.features import Feature
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.groups import groups_of, half_widths_of, strongest
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import SHORT_COLUMNS, text_is_name, token_labels
from apportion_plugins.visualizers.numbers import DECIMALS, INTERVAL, Numbers, half_widths
from apportion_plugins.visualizers.own_target import HATCHED
from apportion_plugins.visualizers.pairs import interval_notes, pairs_of
from apportion_plugins.visualizers.palette import colour_limit, strengths
from apportion_plugins.visualizers.selection import left_out, ranked, repeats_the_whole
from apportion_plugins.visualizers.steps import step_rows

__all__ = ["feature_table", "group_table", "pair_table", "step_table", "token_table"]

TEXT_COLUMNS = 60
MOST_PAIRS = 20


def feature_table(attribution: Attribution, rows: Sequence[int]) -> str:
    """Feature, text, replacement, attribution, error, bar."""
    features = [attribution.features[i] for i in rows]
    numbers = Numbers(attribution.values, decimals=DECIMALS, signed=attribution.signed)
    strength = strengths(np.asarray(attribution.values))
    half = half_widths(attribution)
    texts = not all(map(text_is_name, features))
    baselines = any(feature.baseline for feature in features)
    heads = ["feature", *(["text"] if texts else []), *(["replaced by"] if baselines else [])]
    in_prompt = {segment.feature for segment in attribution.segments}
    lines = []
    for i, feature in zip(rows, features, strict=True):
        cells = [parts.row_head(parts.label(feature.name))]
        if texts:
            cells.append(parts.cell(_text(feature, shorten=i in in_prompt)))
        if baselines:
            cells.append(parts.cell(parts.piece(feature.baseline or "(removed)")))
        cells += _figures(numbers, attribution.values[i], None if half is None else half[i])
        lines.append("".join([*cells, parts.bar(float(strength[i]), signed=attribution.signed)]))
    return parts.table(parts.column_heads(heads, _units(attribution)), lines)


def group_table(attribution: Attribution, limit: int | None) -> list[str]:
    """Groups of a drill-down, indented below those that contain them, and notes."""
    groups = groups_of(attribution)
    rows, notes = strongest(groups, limit, "max_features")
    values, half = np.array([group.value for group in groups]), half_widths_of(groups)
    numbers, strength = Numbers(values, decimals=DECIMALS, signed=attribution.signed), strengths(values)
    lines = []
    for i in rows:
        group = groups[i]
        tag = group.tag(sum(groups[row].parent == i for row in rows))
        name = parts.label(group.label(TEXT_COLUMNS), TEXT_COLUMNS)
        note = f' <small class="apn-soft">{tag}</small>' if tag else ""
        figures = _figures(numbers, group.value, None if half is None else half[i])
        bar = parts.bar(float(strength[i]), signed=attribution.signed)
        lines.append("".join([parts.row_head(name + note, group.depth), *figures, bar]))
    if any(groups[i].closed for i in rows):
        notes.append("Features of a group that was not expanded share its score.")
    heads = parts.column_heads(["group"], [attribution.unit, *([] if half is None else ["±"]), ""])
    return [parts.table(heads, lines), *map(parts.soft, notes)]


def pair_table(attribution: Attribution) -> list[str]:
    """The strongest interactions, and notes."""
    pairs = pairs_of(attribution, None)
    first, second = np.triu_indices(len(pairs.values), 1)
    values = pairs.matrix[first, second]
    if not len(values):
        return []
    rows = ranked(values)[:MOST_PAIRS]
    numbers, strength = Numbers(values, decimals=DECIMALS), strengths(values)
    half = None if pairs.matrix_half_widths is None else pairs.matrix_half_widths[first, second]
    names = [parts.label(feature.name) for feature in attribution.features]
    lines = []
    for i in rows:
        cells = [parts.row_head(names[first[i]]), parts.cell(names[second[i]])]
        cells += _figures(numbers, values[i], None if half is None else half[i])
        lines.append("".join([*cells, parts.bar(float(strength[i]))]))
    error = [] if half is None else ["±"]
    heads = parts.column_heads(["feature", "and feature"], [attribution.unit, *error, ""])
    notes = [*left_out(values, rows, "pairs", "", "|interaction|"), *interval_notes(pairs)]
    return [parts.soft(f"{pairs.index}, the strongest pairs"), parts.table(heads, lines), *map(parts.soft, notes)]


def token_table(attribution: Attribution, rows: Sequence[int], max_cells: int) -> list[str]:
    """Features × target tokens, with the step scores below; those alone if the rest has too many cells or no news."""
    labels = token_labels(attribution.target_tokens)
    size = len(labels) * len(rows)
    if repeats_the_whole(attribution) or not size:
        return step_table(attribution)
    if size > max_cells:
        return [
            *step_table(attribution),
            parts.soft(
                f"The table of {len(rows)} features × {len(labels)} target tokens is omitted: "
                f"{size:,} cells exceed max_cells={max_cells:,}."
            ),
        ]
    cells, possible = np.asarray(attribution.token_values).T[list(rows)], attribution.possible.T[list(rows)]
    signed = attribution.signed
    limit, numbers = colour_limit(cells), Numbers(cells.ravel(), digits=2, signed=signed)
    errors = attribution.token_std_error
    heads = "".join(f'<th scope="col">{parts.piece(token)}</th>' for token in labels)
    lines = []
    for i, row, able in zip(rows, cells, possible, strict=True):
        half = None if errors is None else INTERVAL * np.asarray(errors)[:, i]
        name = parts.row_head(parts.label(attribution.features[i].name, SHORT_COLUMNS))
        colours = [colour_class(float(value) / limit, signed=signed) for value in row]
        lines.append(name + _token_cells(row, able, half, colours, numbers))
    lines += _step_lines(attribution)
    note = "" if errors is None else f"; ±: 95 % interval, {INTERVAL} standard errors"
    most = f"{'±' if signed else ''}{Numbers([limit]).plain(limit)}"
    steps = "; below, its step scores" if attribution.step_scores else ""
    caption = f"Each target token ({attribution.unit}; the strongest colours are {most}{note}){steps}"
    notes = [] if possible.all() else [parts.soft(HATCHED)]
    return [parts.soft(caption), parts.table(f"<td></td>{heads}", lines, "apn-tokens"), *notes]


def step_table(attribution: Attribution) -> list[str]:
    """Step scores × target tokens; nothing without step scores."""
    if not attribution.step_scores:
        return []
    heads = "".join(f'<th scope="col">{parts.piece(token)}</th>' for token in token_labels(attribution.target_tokens))
    table = parts.table(f"<td></td>{heads}", _step_lines(attribution), "apn-tokens")
    return [parts.soft("Step scores of each target token"), table]


def _step_lines(attribution: Attribution) -> list[str]:
    """A row of the table of target tokens for each step score."""
    lines = []
    for row in step_rows(attribution):
        tip = f' title="{escape(row.label)}"' if row.label else ""
        name = f'<th scope="row" class="apn-step"{tip}>{parts.piece(row.title)}</th>'
        lines.append(name + "".join(f'<td class="apn-step">{escape(text)}</td>' for text in row.texts))
    return lines


def _token_cells(
    row: Float64[np.ndarray, " T"],
    possible: Bool[np.ndarray, " T"],
    half: Float64[np.ndarray, " T"] | None,
    colours: list[str],
    numbers: Numbers,
) -> str:
    cells = []
    for t, value in enumerate(row):
        if not possible[t]:
            cells.append('<td class="apn-none"></td>')
            continue
        error = "" if half is None else f" <small>±{numbers.plain(half[t])}</small>"
        cells.append(f'<td class="{colours[t]}">{numbers.signed(value)}{error}</td>')
    return "".join(cells)


def _text(feature: Feature, *, shorten: bool) -> str:
    """The text of a feature; what the prompt shows whole is shortened here."""
    return parts.label(feature.text, TEXT_COLUMNS) if shorten else parts.piece(feature.text)


def _units(attribution: Attribution) -> list[str]:
    return [attribution.unit, *([] if attribution.std_error is None else ["±"]), ""]


def _figures(numbers: Numbers, value: float, half: float | None) -> list[str]:
    """Cells of a value and, unless it is exact, of the half-width of its interval."""
    return [parts.number(numbers.signed(value)), *([] if half is None else [parts.number(numbers.plain(half))])]
