"""The full prompt as tokens, for methods that replace tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError
from apportion.game.token_features import token_owners
from apportion.protocols.backend import LogitsSession, Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.targets import Target, TargetFunction

if TYPE_CHECKING:
    from apportion.protocols.request import Request
    from apportion.protocols.row import ModelInput

__all__ = ["Charge", "Predict", "ScoreTokens", "TokenView", "predictions", "text_only", "token_view"]

Charge = Callable[[int], None]
"""Counts evaluations other than of coalitions, before they are made; raises if they exceed the budget."""

ScoreTokens = Callable[[Sequence[tuple[int, ...]], TargetFunction], Float[Tensor, "N K"]]
Predict = Callable[[tuple[int, ...], int | None], Float[Tensor, "P V"]]


@dataclass(frozen=True, slots=True)
class TokenView:
    """View of the prompt for methods that replace its tokens instead of evaluating coalitions.

    Attributes:
        prompt_ids: the prompt with all features, special tokens included.
        feature_of: the feature of each of the prompt's P tokens; ``None`` for a token that belongs to no feature.
        target: the output to explain.
        target_fn: name of the run's target function.
        score: computes the values of prompts, given as token ids, with a target function; each counts as an evaluation.
        predictions: returns the model's logits for each of the P tokens, given the tokens before it (the start token
            for the first one); ``Float[P, V]`` on the CPU, from one forward pass that does not count.
    """

    prompt_ids: tuple[int, ...]
    feature_of: tuple[int | None, ...]
    target: Target
    target_fn: str
    score: ScoreTokens
    predictions: Callable[[], Float[Tensor, "P V"]]


def token_view(request: Request, session: Session, score: ScoreTokens, predict: Predict, charge: Charge) -> TokenView:
    """The token view of a request's full prompt.

    Args:
        request: the run's request.
        session: session whose tokenizer encoded the prompt.
        score: computes the values of prompts with a target function.
        predict: returns the logits for each token of a prompt; see ``predictions``.
        charge: counts evaluations before they are made.

    Raises:
        CapabilityError: tokens cannot be matched with features, a feature has none, or tokens of the target are
            features.
    """
    if any(feature.generated is not None for feature in request.adapter.features):
        raise CapabilityError(
            f"The method {request.method_name!r} replaces tokens of the prompt, and not those of the target, which "
            "attribute_generated=True makes features. Leave that out, or use a method that evaluates coalitions, such "
            "as 'ablation'."
        )
    ids = text_only(request.renderer.full())

    def counted(prompts: Sequence[tuple[int, ...]], target_fn: TargetFunction) -> Float[Tensor, "N K"]:
        charge(len(prompts))
        return score(prompts, target_fn)

    return TokenView(
        prompt_ids=ids,
        feature_of=token_owners(request, session.tokenizer, ids),
        target=request.target,
        target_fn=request.target_fn_name,
        score=counted,
        predictions=partial(predict, ids, request.renderer.start()),
    )


def text_only(prompt: ModelInput) -> tuple[int, ...]:
    """The token ids of a prompt without media.

    Raises:
        CapabilityError: the prompt holds media, which methods that work on tokens would ignore.
    """
    if prompt.media:
        raise CapabilityError(
            "The prompt holds pictures or other media, and methods that work on tokens or embeddings read text only. "
            "Use a perturbation method."
        )
    return prompt.ids


def predictions(session: Session, ids: tuple[int, ...], start: int | None) -> Float[Tensor, "P V"]:
    """Logits for each token of a prompt, given the tokens before it, from one forward pass.

    Args:
        session: a session with logits.
        ids: the prompt.
        start: token from which the first token is predicted; if ``None``, the first token has equal logits for the
            whole vocabulary.

    Raises:
        CapabilityError: an encoder reads prompts, and does not predict their tokens.
    """
    if not session.layout.joint:
        raise CapabilityError(
            "This model reads prompts in an encoder, which does not predict their tokens. Use a method that needs no "
            "such predictions."
        )
    assert isinstance(session, LogitsSession)
    first, rest = ((start,), ids) if start is not None else (ids[:1], ids[1:])
    known = torch.cat(list(session.logits(ScoringBatch.of([first], rest), 1)))[0].cpu().double() if rest else None
    if known is None:
        return torch.zeros(len(ids), int(session.info.vocabulary or 1), dtype=torch.float64)
    return known if start is not None else torch.cat([torch.zeros_like(known[:1]), known])
