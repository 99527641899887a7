"""The speed of a model, measured by a few short forward passes, for estimates of longer runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from apportion.errors import counted
from apportion.scoring.work import Work

__all__ = ["SHORTEST", "Probe", "Speed", "growing_probes", "measured"]

SHORTEST = 32
"""Number of tokens in the first probe, unless the run's sequences are short themselves."""
STEP = 4
"""Each probe is this many times as long as the one before."""
DEARER = 1.3
"""Upper estimate of how much more time a token takes in a sequence that is ``STEP`` times as long."""
FURTHER = 1.2
"""A run whose longest sequence exceeds those of the trials by this factor is called extrapolated."""
BRIEF = 0.25
"""Trials that take less, in seconds, are made twice."""
WORTHWHILE = 1.25
"""A trial is not made if its sequence is not this many times as long as that of the one before."""
SHARE = 0.25
"""Fraction of the expected time of a run that the trials may take."""
LEAST_SECONDS, MOST_SECONDS = 1.0, 5.0
"""Bounds of the time that the trials may take; the first one is as short as it can be."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement.

    Attributes:
        tokens: length of its longest sequence.
        work: work that was done.
        seconds: time that it took.
    """

    tokens: int
    work: Work
    seconds: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Time per forward pass, per token and per pair of tokens that attend to each other.

    The time of a forward pass is about linear in all three: weights are read once per pass, every token is multiplied
    by them, and attention compares pairs of tokens.

    Attributes:
        seconds_per: seconds per forward pass, token and pair.
        probes: the measurements that it was fitted to.
        scale: ratio of measured to fitted time in a sample of the run's own batches.
    """

    seconds_per: tuple[float, float, float]
    probes: tuple[Probe, ...]
    scale: float = 1.0

    @classmethod
    def fitted(cls, probes: Sequence[Probe]) -> Speed:
        """Fit the times to measurements, by non-negative least squares of relative errors.

        From one measurement all time is taken to go by tokens, and from two none by pairs.
        """
        from scipy.optimize import nnls

        work = np.array([(p.work.tokens, p.work.forwards, p.work.pairs)[: len(probes)] for p in probes], dtype=float)
        times = np.array([max(p.seconds, 1e-9) for p in probes])
        # Columns of about the same size, so that the solver's tolerance suits all of them.
        size = np.maximum(work.max(0), 1.0)
        per, _ = nnls(work / size / times[:, None], np.ones(len(probes)))
        token, forward, pair = [*(per / size).tolist(), 0.0, 0.0][:3]
        return cls((forward, token, pair), tuple(probes))

    def seconds(self, work: Work) -> float:
        """Time that some work takes."""
        forward, token, pair = self.seconds_per
        return self.scale * (forward * work.forwards + token * work.tokens + pair * work.pairs)

    def allowed(self, total: Work) -> float:
        """Seconds that trials of growing length may take, if this is the work of the whole run.

        A quarter of the run, or more if that is short and less if it is long. A sample of the run gets half as much.
        """
        return min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * self.seconds(total)))

    def scaled(self, sample: Probe) -> Speed:
        """The speed at which a sample of the run's own batches was read."""
        return replace(self, scale=sample.seconds / self.seconds(sample.work), probes=(*self.probes, sample))

    def described(self, longest: int) -> str:
        """A description of how the speed was measured.

        Args:
            longest: length of the longest sequence of the run, in tokens.
        """
        lengths = [probe.tokens for probe in self.probes]
        if not lengths:
            return ""
        span = f"{min(lengths):,} to " if min(lengths) < max(lengths) else ""
        taken = sum(probe.seconds for probe in self.probes)
        trials = counted(len(lengths), "short trial")
        text = f"in {trials} with {span}{counted(max(lengths), 'token')} ({taken:.1f} s)"
        if longest > FURTHER * max(lengths):
            text += f", extrapolated to {longest:,} tokens"
        return text


def measured(trial: Callable[[], Probe]) -> Probe:
    """Make a trial, and a brief one twice: other programs may delay one of them."""
    first = trial()
    return first if first.seconds > BRIEF else min(first, trial(), key=lambda one: one.seconds)


def growing_probes(longest: int, probe: Callable[[int], Probe], total: Work) -> list[Probe]:
    """Time sequences of growing length, up to the longest of the run or as far as the time allows.

    Args:
        longest: length of the run's longest sequence, in tokens.
        probe: times a sequence of some length.
        total: work of the whole run, which decides how long the probes may take.
    """
    length = max(1, min(SHORTEST, longest // STEP))
    probe(length)  # the first one warms up
    found = [measured(partial(probe, length))]
    while length < longest:
        left = Speed.fitted(found).allowed(total) - sum(one.seconds for one in found)
        # A token of a longer sequence takes longer, but hardly by more than this.
        affordable = int(left / (found[-1].seconds / length) / DEARER)
        following = min(longest, STEP * length, affordable)
        if following < min(longest, WORTHWHILE * length):
            break
        length = following
        found.append(measured(partial(probe, length)))
    return found
