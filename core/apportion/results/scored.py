"""The quantity that the target function of a result measures, in words."""

from __future__ import annotations

from apportion.results.provenance import Provenance

__all__ = ["PLAIN", "scored", "scored_in_words"]

PLAIN = "log_prob"
"""The target function whose values views call the target's score."""


def scored(provenance: Provenance) -> str:
    """The quantity that a run explains: ``"perplexity of the target"``; empty for the target's log-probability.

    Target functions without a label are called by their name: ``"value of NAME"``.
    """
    if provenance.target_fn == PLAIN:
        return ""
    return provenance.target_label or f"value of {provenance.target_fn}"


def scored_in_words(provenance: Provenance) -> str:
    """The quantity, and what a rise means where its name does not say it; empty for the target's log-probability."""
    what = scored(provenance)
    return f"{what} (a rise {provenance.target_rise})" if what and provenance.target_rise else what
