"""Sentences on a context reliance, shared by its views."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.context_reliance import ContextReliance, SensitiveToken
from apportion.results.outliers import FEW
from apportion_plugins.visualizers.facts import error_notes, summary
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.numbers import Numbers

__all__ = ["cue_numbers", "facts_of", "findings", "probabilities", "reading", "score_numbers"]


def findings(found: ContextReliance) -> str:
    """The result in a few words."""
    return one_line(found.finding)


def reading(found: ContextReliance) -> str:
    """Choice of the tokens."""
    metric, numbers = one_line(found.metric), score_numbers(found)
    if found.deviations is None:
        rule = f"whose {metric} is not 0"
    else:
        rule = (
            f"with a {metric} of at least {numbers.plain(found.threshold)} {found.unit}, "
            f"{_deviations(found.deviations)} above the mean"
        )
    most = "" if found.most_tokens is None else f", at most {found.most_tokens}"
    few = "; the largest of so few always is" if found.deviations and len(found.tokens) <= FEW else ""
    return f"Marked in the output are tokens {rule}{few}{most}"


def score_numbers(found: ContextReliance) -> Numbers:
    """Format of the metric."""
    return Numbers(found.scores)


def cue_numbers(found: ContextReliance) -> Numbers:
    """Format of the attributions of cues."""
    return Numbers([cue.value for token in found.sensitive_tokens for cue in token.cues])


def probabilities(token: SensitiveToken) -> tuple[str, str]:
    """Probability of a token without the context and with it."""
    numbers = Numbers([token.contextless_probability, token.probability])
    return numbers.plain(token.contextless_probability), numbers.plain(token.probability)


def facts_of(found: ContextReliance) -> Sequence[tuple[str, str]]:
    """The choice of cues, then method, cost and notes."""
    result, most = found.attribution, "" if found.most_cues is None else f", at most {found.most_cues}"
    what = f"{one_line(result.estimand)} of {one_line(result.provenance.target_fn)}"
    rule = "all that are not 0"
    if found.cue_deviations is not None:
        rule = f"those whose magnitude is {_deviations(found.cue_deviations)} above the mean for a token"
    cues = f"{what} ({result.unit}); {rule}{most}"
    # Cues are shown without the errors of their values.
    hidden = {("note", note) for note in error_notes(result)}
    return [("cues", cues), *(fact for fact in summary(result) if fact[0] != "score" and fact not in hidden)]


def _deviations(number: float) -> str:
    return f"{number:g} standard deviation{'' if number == 1 else 's'}"
