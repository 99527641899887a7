"""Style sheet of the HTML view, light and dark; all class names start with ``apn-``."""

from __future__ import annotations

import functools
import math

from apportion_plugins.visualizers.palette import DARK, LIGHT, Ramp, hex_of, text_on

__all__ = ["colour_class", "fills", "style_sheet"]

STEPS = 20
"""Number of colours on each side of zero."""

_LAYOUT = """
.apn-view { --apn-paper: #fff; --apn-ink: #1c1c1c; --apn-soft: #666; --apn-line: #ddd;
  background: var(--apn-paper); color: var(--apn-ink); font: 14px/1.5 system-ui, sans-serif;
  padding: 12px 16px; border-radius: 6px; text-align: start; max-width: 100%; }
.apn-view, .apn-view * { box-sizing: border-box; }
.apn-view p { margin: 0 0 6px; }
.apn-view .apn-title { font-size: 17px; font-weight: 600; margin: 0 0 4px; }
.apn-view .apn-soft, .apn-view summary { color: var(--apn-soft); }
.apn-view .apn-target { white-space: pre-wrap; overflow-wrap: anywhere; }
.apn-view .apn-key { display: inline-block; width: 12em; height: 0.8em; margin: 0 0.5em; border-radius: 2px;
  vertical-align: baseline; }
.apn-view .apn-prompt { margin: 10px 0 14px; padding: 10px 12px; border: 1px solid var(--apn-line); border-radius: 4px;
  line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; text-align: start; }
.apn-view .apn-prompt span { padding: 2px 0; border-radius: 3px; cursor: help; }
.apn-view .apn-prompt .apn-kept { color: var(--apn-soft); cursor: auto; }
/* Copies of the prompt do not contain the marks. */
.apn-view .apn-mark { margin-inline: 0.3em 0.15em; font-size: 0.72em; white-space: nowrap; vertical-align: 0.35em;
  line-height: 1; font-variant-numeric: tabular-nums; user-select: none; -webkit-user-select: none; }
.apn-view .apn-scroll { overflow-x: auto; margin: 0 0 12px; max-width: 100%; }
.apn-view .apn-table { border-collapse: collapse; border-spacing: 0; margin: 0; font: inherit; width: auto;
  border: none; table-layout: auto; }
/* Notebooks stripe every other row, with very specific rules. */
.apn-view .apn-table tr { background: var(--apn-paper) !important; }
.apn-view .apn-table th, .apn-view .apn-table td { padding: 2px 10px; border: none; text-align: start; max-width: 26em;
  font-weight: normal; vertical-align: middle; white-space: normal; overflow-wrap: break-word; line-height: 1.45;
  color: var(--apn-ink); }
.apn-view .apn-table thead th { color: var(--apn-soft); vertical-align: bottom;
  border-bottom: 1px solid var(--apn-line); }
.apn-view .apn-table thead .apn-number { white-space: normal; }
.apn-view .apn-table tbody th { color: var(--apn-ink); background: var(--apn-paper); }
.apn-view .apn-table .apn-number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.apn-view .apn-table .apn-bars { padding: 2px 0; direction: ltr; }
.apn-view .apn-bar { display: block; position: relative; width: clamp(64px, 18vw, 180px); height: 1.05em;
  background: linear-gradient(var(--apn-soft), var(--apn-soft)) center / 1px 100% no-repeat; }
.apn-view .apn-from-left { background-position: left; }
.apn-view .apn-bar i { position: absolute; top: 0.1em; bottom: 0.1em; }
.apn-view .apn-tokens th:first-child { position: sticky; left: 0; z-index: 1; max-width: min(16em, 34vw);
  background: var(--apn-paper); }
.apn-view .apn-tokens thead th { text-align: center; white-space: nowrap; padding: 2px 4px; }
.apn-view .apn-tokens td { border: 1px solid var(--apn-paper); padding: 2px 5px; text-align: center; font-size: 12px;
  min-width: 3.6em; font-variant-numeric: tabular-nums; }
.apn-view .apn-tokens td:first-child { border: none; position: sticky; left: 0; background: var(--apn-paper); }
.apn-view .apn-tokens td small { display: block; opacity: 0.85; font-size: 10px; white-space: nowrap; }
.apn-view .apn-tokens .apn-none { background: repeating-linear-gradient(-45deg, var(--apn-line) 0 1px,
  transparent 1px 6px); }
.apn-view .apn-table .apn-step { color: var(--apn-soft); }
.apn-view .apn-whole { white-space: nowrap; }
.apn-view details { margin: 6px 0 0; }
.apn-view summary { cursor: pointer; }
.apn-view .apn-facts th { color: var(--apn-soft); vertical-align: top; white-space: nowrap; }
.apn-view .apn-facts td { max-width: 60em; overflow-wrap: anywhere; }
@media (max-width: 520px) {
  .apn-view { padding: 10px 8px; }
  .apn-view .apn-table th, .apn-view .apn-table td { padding: 2px 5px; }
  .apn-view .apn-key { width: 6em; }
  .apn-view .apn-stacked, .apn-view .apn-stacked tbody { display: block; }
  .apn-view .apn-stacked thead { display: none; }
  .apn-view .apn-stacked tr { display: block; padding: 4px 0; border-bottom: 1px solid var(--apn-line); }
  .apn-view .apn-stacked tbody th, .apn-view .apn-stacked td { display: block; max-width: none; }
  .apn-view .apn-stacked tbody th { font-weight: 600; }
  .apn-view .apn-stacked td[data-head] { display: flex; justify-content: space-between; gap: 1em; }
  .apn-view .apn-stacked td[data-head]::before { content: attr(data-head); white-space: normal; text-align: start; }
  .apn-view .apn-stacked td:empty { display: none; }
}
@media print {
  .apn-view { padding: 0; }
  .apn-view, .apn-view * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .apn-view .apn-scroll { overflow: visible; }
  .apn-view .apn-table tr { break-inside: avoid; }
  .apn-view details::details-content { content-visibility: visible; block-size: auto; }
}
"""
_DARK = "--apn-paper: #17181a; --apn-ink: #e8e8e8; --apn-soft: #a2a2a2; --apn-line: #3a3b3e;"


def colour_class(strength: float, *, signed: bool = True) -> str:
    """CSS class for a strength from −1 to 1: ``apn-p1`` to ``apn-p20``, ``apn-n1`` …, or ``apn-z`` close to zero.

    Magnitudes (``signed=False``) are ``apn-m1`` to ``apn-m20``.
    """
    if math.isnan(strength):
        return "apn-x"
    step = round(min(1.0, abs(strength)) * STEPS)
    if step == 0:
        return "apn-z"
    kind = ("p" if strength > 0 else "n") if signed else "m"
    return f"apn-{kind}{step}"


@functools.cache
def style_sheet() -> str:
    """The complete style sheet, with dark rules for readers whose system is dark."""
    dark = f".apn-view {{ {_DARK} }}\n{_colours(DARK)}"
    return f"<style>{_LAYOUT}{_colours(LIGHT)}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n</style>"


@functools.cache
def fills() -> str:
    """Rules that fill shapes with the colours of their classes, light and dark."""
    light, dark = (
        "\n".join(f".apn-view path.{name} {{ fill: {hex_of(colour)}; }}" for name, colour in _shades(ramp).items())
        for ramp in (LIGHT, DARK)
    )
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _shades(ramp: Ramp) -> dict[str, tuple[int, int, int]]:
    """The colour of each class."""
    sizes, magnitudes = {step: step / STEPS for step in range(1, STEPS + 1)}, ramp.of_magnitudes()
    shades = {"apn-z": ramp.colour(0.0), "apn-x": ramp.colour(math.nan)}
    for step, size in sizes.items():
        shades |= {f"apn-p{step}": ramp.colour(size), f"apn-n{step}": ramp.colour(-size)}
        shades[f"apn-m{step}"] = magnitudes.colour(size)
    return shades


def _colours(ramp: Ramp) -> str:
    rules = []
    for name, colour in _shades(ramp).items():
        ink = hex_of(text_on(colour))
        # As specific as the rules for cells, which come first.
        rules.append(
            f".apn-view .{name}, .apn-view .apn-table .{name} {{ background: {hex_of(colour)}; color: {ink}; }}"
        )
    magnitudes = ramp.of_magnitudes()
    keys = {"": [ramp.colour(i / 4) for i in range(-4, 5)], ".apn-m": [magnitudes.colour(i / 4) for i in range(5)]}
    for kind, colours in keys.items():
        stops = ", ".join(map(hex_of, colours))
        rules.append(f".apn-view .apn-key{kind} {{ background: linear-gradient(to right, {stops}); }}")
    return "\n".join([*rules, ""])
