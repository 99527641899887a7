"""Information that a prompt adds about the target, compared with a reference prompt."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.options import whole_number
from apportion.protocols.targets import EMPTY, FULL, Needs, Scores, Target
from apportion_plugins.targets.columns import expectation, summed
from apportion_plugins.targets.distribution import check_top_p, nucleus

__all__ = ["PCXMI", "InContextPVI", "KLDivergence"]


class PCXMI:
    """Pointwise conditional cross-mutual information, ``log p(y | x) − log p(y | reference)``, in nats.

    It is positive where the prompt helps (Fernandes et al. 2021, arXiv 2105.03482); Inseq returns its negative, in
    bits. The reference does not depend on the features, so the attributions equal those of ``log_prob``. The scores
    show how much the whole prompt adds.

    Args:
        reference: the prompt to compare with: ``"empty"`` (no features), ``"full"``, or its text.
    """

    needs = Needs.LOG_PROBS
    unit = "nats"

    def __init__(self, *, reference: str = EMPTY) -> None:
        self.reference = _checked(reference)

    @property
    def label(self) -> str:
        """Quantity that the values measure."""
        return f"gain in log-probability of the target over {_named(self.reference)}"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Differences of log-probabilities, for the whole target and for each token."""
        assert scores.log_probs is not None and scores.reference is not None
        assert scores.reference.log_probs is not None
        return summed(scores.log_probs.double() - scores.reference.log_probs.double())


class InContextPVI(PCXMI):
    """In-context pointwise V-information, ``log₂ p(y | x) − log₂ p(y)``, in bits (Lu et al. 2023, arXiv 2310.12300).

    Args:
        reference: the prompt to compare with; ``""`` for none, so that the target follows the start token.
    """

    unit = "bits"

    def __init__(self, *, reference: str = "") -> None:
        super().__init__(reference=reference)

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Differences of log-probabilities to base 2."""
        return super().__call__(scores, target) / math.log(2)


class KLDivergence:
    """Kullback–Leibler divergence ``KL(P ‖ Q)`` at each target position, in nats, and their sum.

    P is the distribution given the reference prompt, Q the one given the current prompt. The divergence measures how
    far the prompt shifts the model's predictions, independent of the target token. It is 0 for the reference itself:
    with ``reference="full"``, features whose absence shifts the predictions get negative values. As in Inseq, P and Q
    can be truncated to the most likely tokens of P and renormalised, first by ``top_p``, then by ``top_k``.

    Args:
        reference: the prompt to compare with: ``"full"`` (all features), ``"empty"``, or its text.
        top_k: number of most likely tokens to keep; ``None`` for all.
        top_p: total probability of the tokens to keep.

    Raises:
        InputError: ``top_k`` is below 1, or ``top_p`` is not above 0 and at most 1.
    """

    needs = Needs.LOGITS
    unit = "nats"

    def __init__(self, *, reference: str = FULL, top_k: int | None = None, top_p: float = 1.0) -> None:
        self.reference = _checked(reference)
        self.top_k = None if top_k is None else whole_number("top_k", top_k, least=1)
        self.top_p = check_top_p(top_p)

    @property
    def label(self) -> str:
        """Quantity that the values measure."""
        return f"divergence from the predictions after {_named(self.reference)}"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Divergences; at least 0."""
        assert scores.logits is not None and scores.reference is not None and scores.reference.logits is not None
        there = scores.reference.logits.to(scores.logits)
        out = ~self._counting(there)
        p = there.masked_fill(out, -torch.inf).log_softmax(-1)
        q = scores.logits.masked_fill(out, -torch.inf).log_softmax(-1)
        return summed(expectation(p, p - q))

    def _counting(self, logits: Float[Tensor, "1 T V"]) -> Tensor:
        counting = torch.ones_like(logits, dtype=torch.bool) if self.top_p == 1 else nucleus(logits, self.top_p)
        if self.top_k is None or self.top_k >= logits.shape[-1]:
            return counting
        places = logits.topk(self.top_k, dim=-1).indices
        return counting & torch.zeros_like(counting).scatter(-1, places, True)


def _checked(reference: str) -> str:
    if not isinstance(reference, str):
        raise InputError(f"reference={reference!r} must be 'full', 'empty' or the text of a prompt.")
    return reference


def _named(reference: str) -> str:
    """The reference prompt in a sentence."""
    names = {FULL: "the full prompt", EMPTY: "the prompt without features", "": "no prompt at all"}
    return names.get(reference, "the reference prompt")
