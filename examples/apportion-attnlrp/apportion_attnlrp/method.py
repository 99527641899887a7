"""The method: one forward pass, one backward pass per output, and the balance of relevance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import apportion as ap
from apportion_attnlrp.balance import Account, Balance
from apportion_attnlrp.layers import edits_of

__all__ = ["AttnLRP"]

TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2
"""Relevance that may go missing, as a share of what arrives at tokens: in fp32, where rounding loses about 1e-6, and in
half precision."""


class AttnLRP:
    """AttnLRP: how much of an output each token accounts for, propagated back layer by layer (arXiv 2402.05602).

    The relevance of a token is its embedding times a changed gradient, summed over the embedding's dimensions.
    Normalisations and activations pass relevance on unchanged (identity rule); the factors of a product share it
    equally (uniform rule), in gated layers and in both products of attention; linear layers share it out by what each
    input contributes (0-rule); the softmax of attention follows its Taylor expansion. Positive relevance raises the
    output. The unit is the target function's; AttnLRP was made for ``target_fn="logit"``.

    Without biases, and with ``softmax="constant"``, the relevance of all tokens, special and generated ones included,
    adds up to the explained logits. Else biases, learned positions and the softmax absorb a part, which ``extras``
    state.
    """

    estimand = "AttnLRP relevance"
    requires = frozenset({ap.Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass; one backward pass per output"

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator, softmax: str = "taylor") -> ap.Estimate:
        """Propagate the relevance of each output; one evaluation.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations.
            rng: not used: nothing is random.
            softmax: how attention weights share relevance: "taylor", as in the paper; or "constant" for weights that
                are constants, so that all relevance goes through values, as in CP-LRP (Ali et al., 2022).

        Raises:
            InputError: ``softmax`` is neither.
            CapabilityError: the model does something for which no rule is known.
        """
        if softmax not in ("taylor", "constant"):
            raise ap.InputError(f"softmax={softmax!r} must be 'taylor' or 'constant'.")
        inside = game.inside()
        if not inside.joint:
            raise ap.CapabilityError(
                "The method 'attnlrp' has rules for decoder-only models; this one has an encoder. Use another method."
            )
        if inside.stationary:
            raise ap.CapabilityError(
                "The target function compares the prompt with itself, so all relevance is 0. Use another reference, "
                "such as target_options={'reference': 'empty'}."
            )
        balance = Balance()
        edits = edits_of(inside.modules(), balance, constant_weights=softmax == "constant")
        points, following = inside.embeddings(), inside.following()
        found = inside.gradients(points[None], following=following[None], edits=edits)
        assert found.generated is not None
        prompt, generated = _relevance(found.prompt, points), _relevance(found.generated, following)
        values = _of_features(prompt, inside.feature_of, game.n_features)
        values += _of_features(generated, inside.generated_feature_of, game.n_features)
        extras, lost = _report(balance.accounts(), len(inside.targets[0]), float(values[:, 0].sum()))
        notes = _verdict(lost, precise=points.dtype.itemsize >= 4)
        return ap.Estimate(values, extras=extras, notes=notes, full_value=float(found.values[0, 0]))


def _relevance(gradient: Tensor, embeddings: Tensor) -> Tensor:
    """Relevance of each token, ``Float[O, P]``, from gradients of shape [O, 1, P, D]."""
    return (gradient[:, 0].double() * embeddings.double()).sum(-1).cpu()


def _of_features(tokens: Tensor, features: Sequence[int | None], n_features: int) -> Tensor:
    """The sum over the tokens of each feature, ``Float[F, O]``."""
    found = torch.zeros(n_features, len(tokens), dtype=torch.float64)
    owned = [(i, feature) for i, feature in enumerate(features) if feature is not None]
    places, of = (torch.tensor(column, dtype=torch.long) for column in zip(*owned, strict=True)) if owned else ([], [])
    return found.index_add(0, of, tokens[:, places].T) if owned else found


def _report(passes: Sequence[Sequence[Account]], n_tokens: int, of_features: float) -> tuple[dict[str, float], float]:
    """What became of the relevance of the whole target, and the largest share of any output that is unaccounted for.

    Args:
        passes: accounts of each forward pass.
        n_tokens: number of target tokens.
        of_features: relevance of all features, for the whole target.
    """
    used = [accounts for accounts in passes if accounts]
    lost = max((account.share_lost for accounts in used for account in accounts), default=0.0)
    extras = {"share_unaccounted_for": lost}
    # A target that is the sum of its tokens has a backward pass for each token, any other one more, which is the first.
    if len(used) == 1 and len(used[0]) in (n_tokens, n_tokens + 1):
        (accounts,) = used
        whole = sum(accounts, Account()) if len(accounts) == n_tokens else accounts[0]
        extras |= {
            "explained": whole.explained,
            "relevance_of_features": of_features,
            "relevance_of_other_tokens": whole.tokens - of_features,
            "absorbed_by_softmax": whole.softmax,
            "absorbed_by_biases": whole.biases,
            "absorbed_by_positions": whole.positions,
        }
    return extras, lost


def _verdict(lost: float, *, precise: bool) -> tuple[str, ...]:
    """A note, if relevance is lost by rounding.

    Raises:
        CapabilityError: so much is lost that the model must do something for which there is no rule.
    """
    if lost <= (TOLERANCE if precise else HALF_TOLERANCE):
        return ()
    if precise:
        raise ap.CapabilityError(
            f"The method 'attnlrp' cannot account for {lost:.2%} of the relevance: between its modules, this model "
            "does something for which there is no rule. Use another method, such as 'input_x_gradient'."
        )
    return (f"{lost:.1%} of the relevance is lost by rounding; load the model with dtype='float32'",)
