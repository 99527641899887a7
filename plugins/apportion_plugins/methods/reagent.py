"""ReAGent: importance of features from replacing their tokens with ones that a language model finds plausible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.errors import BudgetError, InputError, counted
from apportion.game.game import Game
from apportion.game.token_view import TokenView
from apportion.options import true_or_false, whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.methods.spread import error_of_mean
from apportion_plugins.targets.likelihood import Prob

__all__ = ["Reagent", "TargetAmongTop"]

DEFAULT_BUDGET = 2048
EXPLAINED = ("log_prob", "prob")
"""Target functions that ReAGent can explain, by the target's probability."""

FARTHEST = 1 - 1e-6
"""Limit on changes in probability; a change of 1 would make the scores infinite."""


class Reagent:
    """Recursive attribution generation (Zhao and Shan 2024, arXiv 2402.00794), with Inseq's parameters.

    Each probe replaces random features with plausible tokens. It moves the scores of the replaced features by the
    logit of the drop in the target's probability, and all other scores by the same amount in the opposite direction.
    A probe ends when the target is among the most likely tokens even though all but the highest-scoring features are
    replaced. The values are the mean softmax scores of the probes: they are positive, add up to 1, and measure how
    important a feature is, not the direction of its effect.

    The replacements come from the explained model itself, which predicts each token from those before it in the
    prompt; the original token is excluded. Inseq's reference implementation draws words of the same part of speech
    and explains one target token at a time. Here, one set of probes serves the whole target and each token.
    """

    estimand = "ReAGent importance"
    requires = frozenset({Capability.LOGITS})
    family, cost = "perturbation", "budget (default 2048)"
    adaptive = True

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        keep_top_n: int = 5,
        keep_ratio: float | None = None,
        invert_keep: bool = False,
        stopping_condition_top_k: int = 3,
        replacing_ratio: float = 0.3,
        max_probe_steps: int = 3000,
        num_probes: int = 16,
        replacement_model: object = None,
    ) -> Estimate:
        """Run until all probes have ended or the budget is spent; standard errors come from the spread over probes.

        Args:
            game: the game to evaluate; its tokens are replaced.
            budget: maximum number of prompts to score; ``None`` for 2048. Each step of a probe takes two.
            rng: draws features and replacements.
            keep_top_n: number of features kept in the stopping check; 0 to use ``keep_ratio``.
            keep_ratio: share of features kept, if ``keep_top_n`` is 0.
            invert_keep: replace the highest-scoring features instead of keeping them.
            stopping_condition_top_k: a probe ends when every target token is among this many most likely ones.
            replacing_ratio: probability that a feature is replaced.
            max_probe_steps: maximum number of steps of a probe.
            num_probes: number of probes, which run in parallel.
            replacement_model: another causal language model of ``transformers`` with the same vocabulary, which
                predicts the replacements; ``None`` for the explained model.

        Raises:
            InputError: a parameter is out of range, or the replacement model has another vocabulary.
            BudgetError: the budget does not allow one step of each probe.
            CapabilityError: the prompt's tokens cannot be matched to its features.
        """
        settings = _Settings(
            keep_top_n, keep_ratio, invert_keep, stopping_condition_top_k, replacing_ratio, max_probe_steps, num_probes
        )
        settings.check()
        budget = DEFAULT_BUDGET if budget is None else budget
        if budget < 1 + 2 * num_probes:
            raise BudgetError(
                f"One step of {counted(num_probes, 'probe')} takes {1 + 2 * num_probes} evaluations, and the "
                f"budget is {budget}. "
                "Raise it, or lower num_probes."
            )
        view = game.tokens()
        if view.target_fn not in EXPLAINED:
            raise InputError(
                f"reagent explains drops in the target's probability, but target_fn is {view.target_fn!r}. Use "
                "target_fn='log_prob' or 'prob', or another method."
            )
        replacer = _Replacer(view, _predictions(view, replacement_model), rng)
        probes = _Probes(game, view, replacer, settings, rng)
        probes.run(budget - 1)
        return probes.estimate()


@dataclass(frozen=True, slots=True)
class _Settings:
    keep_top_n: int
    keep_ratio: float | None
    invert_keep: bool
    top_k: int
    replacing_ratio: float
    max_steps: int
    probes: int

    def check(self) -> None:
        for name, value, least in (
            ("keep_top_n", self.keep_top_n, 0),
            ("stopping_condition_top_k", self.top_k, 1),
            ("max_probe_steps", self.max_steps, 1),
            ("num_probes", self.probes, 1),
        ):
            whole_number(name, value, least=least)
        true_or_false("invert_keep", self.invert_keep)
        if not self.keep_top_n and self.keep_ratio is None:
            raise InputError("keep_top_n=0 requires keep_ratio, the share of features to keep.")
        shares = {"replacing_ratio": self.replacing_ratio}
        shares |= {} if self.keep_ratio is None else {"keep_ratio": self.keep_ratio}
        for name, share in shares.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
                raise InputError(f"{name}={share!r} must be a number between 0 and 1.")

    def kept(self, n_features: int) -> int:
        """Number of features that the stopping check keeps."""
        return min(n_features, self.keep_top_n or math.ceil(float(self.keep_ratio or 0) * n_features))


class TargetAmongTop:
    """Indicator of target tokens that are among the most likely ones at their positions; 1 for the target if all are.

    Args:
        top_k: number of most likely tokens.
    """

    needs = Needs.LOGITS
    unit = "share"

    def __init__(self, *, top_k: int) -> None:
        self.top_k = top_k

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Zeros and ones."""
        assert scores.logits is not None
        ids: Int[Tensor, " T"] = torch.tensor(target.ids, device=scores.logits.device)
        best = scores.logits.topk(min(self.top_k, scores.logits.shape[-1]), dim=-1).indices
        hits = (best == ids[None, :, None]).any(-1)
        return torch.cat([hits.all(1, keepdim=True), hits], dim=1).double()


class _Replacer:
    """Replaces the tokens of features."""

    def __init__(self, view: TokenView, predictions: Float[Tensor, "P V"], rng: torch.Generator) -> None:
        self._ids: Int[Tensor, " P"] = torch.tensor(view.prompt_ids)
        self._features: Int[Tensor, " P"] = torch.tensor([-1 if f is None else f for f in view.feature_of])
        others = predictions.scatter(1, self._ids[:, None], -torch.inf)
        self._chances = others.softmax(-1)
        self._rng = rng

    def __call__(self, replaced: Bool[Tensor, "B F"]) -> list[tuple[int, ...]]:
        """The prompt with the tokens of these features redrawn, one row per mask."""
        drawn = torch.multinomial(self._chances, len(replaced), replacement=True, generator=self._rng).T
        padded = torch.cat([replaced, torch.zeros(len(replaced), 1, dtype=torch.bool)], dim=1)
        there = padded[:, self._features]  # −1, for no feature, selects the added column
        return [tuple(row) for row in torch.where(there, drawn, self._ids).tolist()]


class _Probes:
    """Probes that run in parallel until each has ended."""

    def __init__(
        self, game: Game, view: TokenView, replacer: _Replacer, settings: _Settings, rng: torch.Generator
    ) -> None:
        self._view = view
        self._replacer = replacer
        self._settings = settings
        self._rng = rng
        start = torch.rand(settings.probes, game.n_features, 1, generator=rng, dtype=torch.float64)
        self._scores = start.repeat(1, 1, game.n_outputs)
        self._full = view.score([view.prompt_ids], Prob())[0]
        self._ended = torch.zeros(settings.probes, dtype=torch.bool)
        self._steps = 0
        self._check = TargetAmongTop(top_k=settings.top_k)

    def run(self, budget: int) -> None:
        """Advance all active probes step by step, as long as the budget allows."""
        while self._steps < self._settings.max_steps:
            going = (~self._ended).nonzero().flatten()
            budget -= 2 * len(going)
            if not len(going) or budget < 0:
                return
            self._steps += 1
            self._move(going)
            self._ended[going] = self._has_ended(going)

    def estimate(self) -> Estimate:
        """Average the probes that ended, or all of them if none did."""
        some = self._ended if bool(self._ended.any()) else torch.ones_like(self._ended)
        importance = self._scores[some].softmax(1)
        count, probes = int(self._ended.sum()), len(self._ended)
        notes = ["values are shares of importance: they add up to 1 and have no direction"]
        if count < probes:
            notes.append(f"{count} of {probes} probes ended; {'only those' if count else 'all'} are averaged")
        return Estimate(
            importance.mean(0),
            error_of_mean(importance),
            unit="importance",
            extras={"probe_steps": self._steps, "probes_ended": count},
            notes=tuple(notes),
            signed=False,
        )

    def _move(self, going: Int[Tensor, " A"]) -> None:
        shape = (len(going), self._scores.shape[1])
        replaced = torch.rand(shape, generator=self._rng) < self._settings.replacing_ratio
        left = self._view.score(self._replacer(replaced), Prob())
        drop = (self._full - left).clamp(-FARTHEST, FARTHEST)
        towards = torch.where(replaced, 1.0, -1.0).double()
        self._scores[going] += towards[:, :, None] * torch.logit((drop + 1) / 2)[:, None]

    def _has_ended(self, going: Int[Tensor, " A"]) -> Bool[Tensor, " A"]:
        importance = self._scores[going, :, 0]
        best = importance.topk(self._settings.kept(importance.shape[1]), dim=1).indices
        kept = torch.zeros_like(importance, dtype=torch.bool).scatter(1, best, True)
        replaced = kept if self._settings.invert_keep else ~kept
        found: Tensor = self._view.score(self._replacer(replaced), self._check)[:, 0] > 0
        return found


def _predictions(view: TokenView, model: object) -> Float[Tensor, "P V"]:
    """Logits for each token of the prompt; those for the first token always come from the explained model."""
    own = view.predictions()
    if model is None:
        return own
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise InputError(f"replacement_model={model!r:.80} is not a transformers model.")
    if model.config.is_encoder_decoder:
        raise InputError(
            f"replacement_model={type(model).__name__} is an encoder–decoder model, which predicts no tokens of its "
            "prompt. Give a causal language model."
        )
    ids = torch.tensor([view.prompt_ids], device=model.device)
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits[0].to("cpu", torch.float64)
    if logits.shape[-1] != own.shape[-1]:
        raise InputError(
            f"The replacement model has {logits.shape[-1]} tokens and the explained model {own.shape[-1]}; they must "
            "have the same vocabulary."
        )
    return torch.cat([own[:1], logits[:-1].clone()])
