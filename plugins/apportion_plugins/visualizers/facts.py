"""Provenance of a result in readable lines, shared by all views."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from apportion.errors import counted
from apportion.results.attribution import Attribution
from apportion.results.ranking import top_size
from apportion.results.scored import scored
from apportion_plugins.visualizers.labels import one_line, quotable
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers, half_widths

__all__ = [
    "contrast_text",
    "cost",
    "details",
    "error_notes",
    "estimand_of",
    "half_width_notes",
    "meaning_of_signs",
    "method_line",
    "quantity_of",
    "ranking",
    "score_line",
    "summary",
    "target_text",
]

ROUNDING = 1e-9
SCORE = "the target's score"
LONGEST = 200
"""Maximum length of an option's value."""


def summary(attribution: Attribution) -> list[tuple[str, str]]:
    """Facts that every reader should see (score, method, cost, notes), as names and texts."""
    provenance = attribution.provenance
    where = " on ".join(filter(None, (provenance.backend, provenance.device)))
    lines = [
        ("score", score_line(attribution)),
        ("method", method_line(attribution)),
        ("ranking", ranking(attribution)),
        ("cost", cost(attribution)),
        ("backend", ", ".join(filter(None, (where, provenance.dtype)))),
        *(("note", note) for note in (*provenance.notes, *error_notes(attribution))),
    ]
    return [(name, text) for name, text in lines if text]


def details(attribution: Attribution) -> list[tuple[str, str]]:
    """The rest of the provenance."""
    provenance = attribution.provenance
    lines = [
        ("model", provenance.model),
        ("fingerprint", provenance.fingerprint),
        ("target function", provenance.target_fn),
        ("target options", _pairs(provenance.target_options)),
        ("contrast", "" if provenance.contrast is None else repr(provenance.contrast)),
        ("options", _pairs(provenance.options)),
        ("budget", "no limit" if provenance.budget is None else counted(provenance.budget, "evaluation")),
        ("seed", str(provenance.seed)),
        ("versions", _pairs(provenance.versions)),
        ("created", provenance.created),
    ]
    return [(name, text) for name, text in lines if text]


def target_text(attribution: Attribution) -> str:
    """The target on one line."""
    return quotable(attribution.whole_target)


def meaning_of_signs(attribution: Attribution, *, unit: bool = True) -> str:
    """A sentence on positive and negative values: what they raise and lower, and what a rise means.

    Args:
        attribution: the result.
        unit: name the unit of the values.
    """
    what, rise = scored(attribution.provenance), attribution.provenance.target_rise
    said = f" ({attribution.unit})" if unit else ""
    if not attribution.signed:
        return f"Magnitudes{said}: they do not say whether a feature raises or lowers {what and 'the '}{what or SCORE}."
    if not what:
        return f"Above 0 raises {SCORE}{said}, below 0 lowers it."
    # Some units repeat the name: the perplexity of the target, in units of perplexity.
    measured = f"the {what}" if attribution.unit in what else f"the {what}{said}"
    then = f", which {rise}" if rise else ""
    return f"Above 0 raises {measured}{then}; below 0 does the opposite."


def estimand_of(attribution: Attribution) -> str:
    """The estimand, and of what, unless that is the target's log-probability."""
    what, estimand = scored(attribution.provenance), one_line(attribution.estimand)
    return f"{estimand} of the {what}" if what else estimand


def quantity_of(attribution: Attribution, *, magnitudes: bool = False) -> str:
    """The estimand and its unit, unless the estimand names the unit already.

    Args:
        attribution: the result.
        magnitudes: say so of values without signs.
    """
    estimand, unit = estimand_of(attribution), one_line(attribution.unit)
    said = [] if unit in estimand.split() else [unit]
    if magnitudes and not attribution.signed:
        said.append("magnitudes")
    return f"{estimand} ({', '.join(said)})" if said else estimand


def contrast_text(attribution: Attribution) -> str:
    """The contrast on one line; empty if there is none."""
    return quotable(attribution.provenance.contrast or "")


def score_line(attribution: Attribution) -> str:
    """Scores without features and of the full prompt, and the efficiency gap."""
    base, full = attribution.base_value, attribution.full_value
    numbers = Numbers([v for v in (base, full) if v is not None], digits=4)
    if base is None or full is None:
        known = [("without features", base), ("full prompt", full)]
        return ", ".join(f"{name} {numbers.plain(v)} {attribution.score_unit}" for name, v in known if v is not None)
    ends = f"{numbers.plain(base)} without features → {numbers.plain(full)} full prompt"
    line = f"{ends} ({numbers.signed(full - base)} {attribution.score_unit})"
    gap = attribution.efficiency_gap
    if gap is None:
        return line
    exact = abs(gap) <= ROUNDING * max(1.0, abs(base), abs(full))
    return f"{line}; efficiency gap {'0' if exact else f'{gap:.2g}'.replace('-', '−')}"


def method_line(attribution: Attribution) -> str:
    """The method, and the reason if it was chosen automatically."""
    provenance = attribution.provenance
    return provenance.method + (f" ({provenance.method_reason})" if provenance.method_reason else "")


def ranking(attribution: Attribution) -> str:
    """Stability of the top features across bootstrap replicates; empty if exact, or if all features are on top."""
    share, top = attribution.ranking_stable, top_size(np.asarray(attribution.values))
    if share is None or attribution.std_error is None or top == len(attribution.features):
        return ""
    what = "feature is" if top == 1 else f"{top} are"
    return f"the top {what} the same in {_percent(share)} of bootstrap replicates"


def cost(attribution: Attribution) -> str:
    """Evaluations, tokens and time."""
    provenance = attribution.provenance
    cached = f" ({provenance.cached:,} more from the cache)" if provenance.cached else ""
    media = f"{counted(provenance.encoded_media, 'encoded picture')}, " if provenance.encoded_media else ""
    return (
        f"{counted(provenance.evaluations, 'evaluation')}{cached}, {counted(provenance.forwarded_tokens, 'token')}, "
        f"{media}{provenance.seconds:.3g} s"
    )


def error_notes(attribution: Attribution, mark: str = "±") -> list[str]:
    """Notes on the meaning of ``mark``, and on unknown errors."""
    half = half_widths(attribution)
    return [] if half is None else half_width_notes(half, "features", mark)


def half_width_notes(half: Float64[np.ndarray, " N"], what: str, mark: str = "±") -> list[str]:
    """Notes on the half-widths of intervals.

    Args:
        half: half-widths; NaN where unknown.
        what: name of what they belong to, in the plural.
        mark: the sign or mark that shows them.
    """
    unknown = int(np.isnan(half).sum())
    if unknown == len(half):
        return ["The standard errors are unknown."]
    notes = [f"{mark}: 95 % interval, {INTERVAL} standard errors of the sampling."]
    if not unknown:
        return notes
    if not np.nan_to_num(half).any():
        return [f"The standard errors of {unknown} of {len(half)} {what} are unknown; the other values are exact."]
    return [*notes, f"The standard errors of {unknown} of {len(half)} {what} are unknown."]


def _percent(share: float) -> str:
    # 99.6 % must not be shown as 100 %.
    return f"{min(99, round(100 * share)) if share < 1 else 100} %"


def _pairs(mapping: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in mapping.items())


def _short(value: object) -> str:
    """A value on one line; arrays by their shape."""
    shape = getattr(value, "shape", None)
    text = str(value) if shape is None else f"array of shape {list(shape)}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
