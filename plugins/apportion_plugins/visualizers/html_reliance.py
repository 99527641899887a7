"""HTML view of a context reliance. Pointing at a sensitive token marks its cues in the context."""

from __future__ import annotations

from html import escape

import numpy as np

from apportion.results.context_reliance import ContextReliance, SensitiveToken
from apportion.results.html_view import HtmlView
from apportion_plugins.visualizers import html_parts as parts
from apportion_plugins.visualizers.facts import details, target_text
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import between_words, one_line, prose
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.reliance_facts import (
    cue_numbers,
    facts_of,
    findings,
    probabilities,
    reading,
    score_numbers,
)

__all__ = ["reliance_page"]

LINKED = 60
"""Tokens that are linked with their cues; each takes a rule of the style sheet."""
MOST_CUES = 12


def reliance_page(found: ContextReliance) -> HtmlView:
    """The prompt with its cues, the output with its sensitive tokens, and a table of the two."""
    linked = found.sensitive_tokens[:LINKED]
    hint = ". Point at one of them to see its cues alone." if linked else "."
    facts = facts_of(found)
    rows = [(parts.row_head(parts.piece(k)) + parts.cell(parts.piece(v))) for k, v in facts if k != "note"]
    rows += [parts.row_head(parts.piece(k)) + parts.cell(parts.piece(v)) for k, v in details(found.attribution)]
    body = [
        '<div class="apn-reliance">',
        _style(len(linked)),
        f'<p class="apn-title">{escape(findings(found))}</p>',
        f'<p><span class="apn-soft">Model</span> {parts.piece(found.attribution.provenance.model or "?")}</p>',
        parts.soft("Prompt, with the cues of all marked tokens of the output" if linked else "Prompt"),
        _prompt(found),
        parts.soft(reading(found) + hint),
        _output(found),
        *([_table(found)] if linked else []),
        *(parts.soft(text) for name, text in facts if name == "note"),
        f"<details><summary>Provenance</summary>{parts.table('', rows, 'apn-facts')}</details>",
        "</div>",
    ]
    return parts.page(f"Context reliance: {target_text(found.attribution).strip()}", body)


def _style(linked: int) -> str:
    """Rules that fade all cues but those of the token that is pointed at."""
    rules = [
        f".apn-reliance:has(.apn-t{i}:hover, .apn-t{i}:focus) .apn-cue:not(.apn-c{i}) "
        "{ background: transparent !important; color: inherit !important; }\n"
        f".apn-reliance:has(.apn-t{i}:hover, .apn-t{i}:focus) .apn-cue:not(.apn-c{i}) .apn-mark "
        "{ visibility: hidden; }"
        for i in range(linked)
    ]
    own = (
        ".apn-view .apn-prompt span.apn-plain { cursor: auto; }\n"
        ".apn-view .apn-token:hover, .apn-view .apn-token:focus { outline: 2px solid var(--apn-ink); }\n"
        ".apn-view .apn-cues bdi { white-space: nowrap; }\n"
        "@media (max-width: 520px) { .apn-view .apn-cues > span { text-align: right; } }"
    )
    return f"<style>\n{own}\n{chr(10).join(rules)}\n</style>"


def _prompt(found: ContextReliance) -> str:
    """The prompt; cues are coloured by their attribution to all sensitive tokens together."""
    result = found.attribution
    strength, numbers = strengths(np.asarray(result.values)), Numbers(result.values)
    of_feature: dict[int, list[int]] = {}
    for number, token in enumerate(found.sensitive_tokens):
        for cue in token.cues:
            of_feature.setdefault(cue.index, []).append(number)
    pieces = []
    for segment in result.segments:
        text = prose(segment.text)
        if segment.feature is None:
            pieces.append(f'<span class="apn-kept">{escape(text)}</span>')
        elif segment.feature not in of_feature:
            pieces.append(f'<span class="apn-plain">{_shown(text)}</span>')
        else:
            value, owners = result.values[segment.feature], of_feature[segment.feature]
            classes = " ".join(f"apn-c{number}" for number in owners if number < LINKED)
            body = text.rstrip()
            tip = escape(f"{numbers.signed(value)} {result.unit}: cue of {_names(found, owners)}")
            kind = colour_class(float(strength[segment.feature]))
            inner = f"{_shown(body)}{_mark(body, numbers.signed(value))}"
            pieces.append(
                f'<span class="{kind} apn-cue {classes}" title="{tip}">{inner}</span>{_shown(text[len(body) :])}'
            )
    return f'<div class="apn-prompt" dir="auto" lang="">{"".join(pieces)}</div>' if pieces else ""


def _output(found: ContextReliance) -> str:
    """The output; sensitive tokens are coloured by the metric."""
    strength = strengths(np.nan_to_num(found.scores))
    scores, sensitive = score_numbers(found), {token.position: i for i, token in enumerate(found.sensitive_tokens)}
    pieces = []
    for position, token in enumerate(found.tokens):
        text = prose(token)
        tip = escape(f"{one_line(found.metric)} {scores.plain(float(found.scores[position]))} {found.unit}")
        if position not in sensitive:
            pieces.append(f'<span class="apn-plain" title="{tip}">{_shown(text)}</span>')
            continue
        body, number = text.lstrip(), sensitive[position]
        link = f" apn-t{number}" if number < LINKED else ""
        kind = colour_class(float(strength[position]))
        score = _mark(body, scores.plain(float(found.scores[position])))
        inner = f'<span class="{kind} apn-token{link}" tabindex="0" title="{tip}">{_shown(body)}{score}</span>'
        pieces.append(_shown(text[: len(text) - len(body)]) + inner)
    return f'<div class="apn-prompt" dir="auto" lang="">{"".join(pieces)}</div>'


def _table(found: ContextReliance) -> str:
    """A row for each sensitive token: its score, its probabilities, its alternative, its cues."""
    scores = score_numbers(found)
    metric = f"{one_line(found.metric)} ({found.unit})"
    texts = ["token", "without context", f"cues ({found.attribution.unit})"]
    numbers = [metric, "probability without → with context"]
    heads = parts.column_heads(texts[:1], numbers) + parts.column_heads(texts[1:])
    lines = []
    for number, token in enumerate(found.sensitive_tokens):
        link = f' class="apn-token apn-t{number}" tabindex="0"' if number < LINKED else ""
        same = token.contextless == token.text
        alternative = '<span class="apn-soft">the same</span>' if same else parts.label(token.contextless)
        cells = [
            parts.row_head(f"<span{link}>{parts.label(token.text)}</span>"),
            parts.number(scores.plain(token.score), metric),
            parts.number(" → ".join(probabilities(token)), "probability without → with"),
            f'<td data-head="without context">{alternative}</td>',
            f'<td class="apn-cues" data-head="{escape(texts[-1])}"><span>{_cues(found, token)}</span></td>',
        ]
        lines.append("".join(cells))
    return parts.table(heads, lines, parts.STACKED)


def _cues(found: ContextReliance, token: SensitiveToken) -> str:
    numbers = cue_numbers(found)
    shown = [
        f"{parts.label(cue.feature.name)} <bdi>{escape(numbers.signed(cue.value))}</bdi>"
        for cue in token.cues[:MOST_CUES]
    ]
    more = len(token.cues) - MOST_CUES
    return ", ".join(shown + ([f"and {more} more"] if more > 0 else [])) or '<span class="apn-soft">none</span>'


def _names(found: ContextReliance, numbers: list[int]) -> str:
    tokens = found.sensitive_tokens
    return ", ".join(f"“{one_line(tokens[number].text)}”" for number in numbers)


def _mark(body: str, number: str) -> str:
    """A number beside a word; none in the middle of one."""
    ends = between_words(body[-1:], "")
    return f'<small class="apn-mark"><bdi>{escape(number)}</bdi></small>' if ends else ""


def _shown(text: str) -> str:
    return escape(text.replace("\n", "⏎\n"))
