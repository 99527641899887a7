"""From scores of tokens, dimension by dimension, to values of features: what white-box methods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import shown, unknown_name
from apportion.options import true_or_false
from apportion.protocols.inside import Inside
from apportion.protocols.methods import Estimate

__all__ = ["AGGREGATORS", "NORMALIZATIONS", "Aggregator", "Summary", "TokenScores"]

MUCH = 0.5
"""Share of the scores on tokens without a feature from which on a note points it out."""


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Makes one number of all numbers that belong to a feature: every dimension of each of its tokens.

    Attributes:
        combine: function of the numbers, one row for each result; a row has at least one number.
        naming: name of the outcome, with ``{}`` for that of the scores.
        signed: the outcome keeps a sign.
        linear: the outcome for a mean of scores is the mean of their outcomes.
    """

    combine: Callable[[Float[Tensor, "R N"]], Float[Tensor, " R"]]
    naming: str
    signed: bool = True
    linear: bool = False


def _farthest(numbers: Float[Tensor, "R N"]) -> Float[Tensor, " R"]:
    return numbers.gather(1, numbers.abs().argmax(1, keepdim=True))[:, 0]


AGGREGATORS: Mapping[str, Aggregator] = {
    "sum": Aggregator(lambda numbers: numbers.sum(1), "{}", linear=True),
    "mean": Aggregator(lambda numbers: numbers.mean(1), "{}, mean", linear=True),
    "max": Aggregator(_farthest, "{}, largest in magnitude"),
    "l2": Aggregator(lambda numbers: numbers.norm(dim=1), "{} norm", signed=False),
    "abs_sum": Aggregator(lambda numbers: numbers.abs().sum(1), "{}, sum of magnitudes", signed=False),
    "abs_mean": Aggregator(lambda numbers: numbers.abs().mean(1), "{}, mean magnitude", signed=False),
    "abs_max": Aggregator(lambda numbers: numbers.abs().amax(1), "{}, largest magnitude", signed=False),
}
"""Aggregators by name. Each takes all dimensions of all tokens of a feature at once, so the value of a feature does not
depend on how it is split into tokens of equal scores: ``"l2"`` is the norm over all of them, not a sum of norms."""

NORMALIZATIONS = ("none", "features", "all")
"""What values are divided by: nothing; the sum of their magnitudes; this sum and that of tokens without a feature."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Scores of tokens for each of O outputs: the whole target, then each target token, or the whole target alone.

    Attributes:
        prompt: of the prompt's P tokens and D dimensions; D = 1 for scores without dimensions.
        generated: of the N target tokens that are read, if they are features.
    """

    prompt: Float[Tensor, "O P D"]
    generated: Float[Tensor, "O N D"] | None = None

    def __add__(self, other: TokenScores) -> TokenScores:
        both = None
        if self.generated is not None and other.generated is not None:
            both = self.generated + other.generated
        return TokenScores(self.prompt + other.prompt, both)

    def __mul__(self, factor: float) -> TokenScores:
        return TokenScores(self.prompt * factor, None if self.generated is None else self.generated * factor)

    def of(self, owner: int | None, inside: Inside) -> Float[Tensor, "O X D"]:
        """Scores of the X tokens that belong to a feature, or of those that belong to none, float64 on the CPU."""
        parts = [_picked(self.prompt, inside.feature_of, owner)]
        if self.generated is not None:
            parts.append(_picked(self.generated, inside.generated_feature_of, owner))
        return torch.cat(parts, dim=1)


@dataclass(frozen=True, slots=True)
class Summary:
    """The way from scores of tokens to values of features; from the options of a method.

    Attributes:
        aggregate: name of the aggregator.
        normalize: what values are divided by.
        keep_dims: keep the values of each dimension in ``extras``.

    Raises:
        UnknownNameError: there is no such aggregator or normalisation.
        InputError: ``keep_dims`` is not a bool.
    """

    aggregate: str
    normalize: str = "none"
    keep_dims: bool = False

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("aggregator", self.aggregate, tuple(AGGREGATORS)),
            ("normalisation", self.normalize, NORMALIZATIONS),
        ):
            if not isinstance(name, str) or name not in known:
                raise unknown_name(kind, shown(name) if not isinstance(name, str) else name, known)
        true_or_false("keep_dims", self.keep_dims)

    @property
    def aggregator(self) -> Aggregator:
        """The aggregator itself."""
        return AGGREGATORS[self.aggregate]

    def values(self, scores: TokenScores, inside: Inside, n_features: int) -> Float[Tensor, "F O"]:
        """Values of features, not normalised."""
        rows = [self._combined(scores.of(feature, inside)) for feature in range(n_features)]
        return torch.stack(rows)

    def estimate(
        self,
        scores: TokenScores,
        inside: Inside,
        *,
        n_features: int,
        n_outputs: int,
        estimand: str,
        signed: bool = True,
        unit: str | None = None,
        std_error: Float[Tensor, "F O"] | None = None,
        replicates: Float[Tensor, "R F"] | None = None,
        full_value: float | None = None,
        extras: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ) -> Estimate:
        """Make the estimate of a method.

        ``extras`` gets ``special_share``: the share of the magnitude of all tokens' scores, for the whole target, that
        falls on special tokens and on tokens without a feature. With ``keep_dims``, it gets ``dims``, Float[F, D] in
        fp32, the sum of a feature's scores in each dimension for the whole target, and ``token_dims``,
        Float[T, F, D], the same for each target token. Neither is normalised.

        Args:
            scores: scores of tokens.
            inside: where they come from.
            n_features: F.
            n_outputs: K; token columns of ``values`` are NaN if there are scores for the whole target alone.
            estimand: name of what the sum of a feature's scores estimates.
            signed: the scores have a sign; else they are magnitudes already.
            unit: unit of the scores, if it is not that of the target function.
            std_error: standard errors of the values, before they are normalised.
            replicates: bootstrap replicates of the values for the whole target, before they are normalised.
            full_value: score of the full prompt for the whole target, if it is known.
            extras: more to keep.
            notes: more that a reader should know.
        """
        values = self.values(scores, inside, n_features)
        other = scores.of(None, inside)
        total = self._total(values, other)
        lacking, special = self._shares(scores, inside)
        kept = dict(extras or {}) | {"special_share": special} | self._dims(scores, inside, n_features)
        more = self._notes(values, total, lacking, special)
        if total is not None:
            values, unit = values / total, "share"
            std_error = None if std_error is None else std_error / total
            replicates = None if replicates is None else replicates / total[0]
        return Estimate(
            _all_outputs(values, n_outputs),
            None if std_error is None else _all_outputs(std_error, n_outputs),
            estimand=self.aggregator.naming.format(estimand),
            extras=kept,
            notes=(*notes, *more),
            unit=unit,
            replicates=replicates,
            signed=signed and self.aggregator.signed,
            full_value=full_value,
        )

    def _combined(self, numbers: Float[Tensor, "O X D"]) -> Float[Tensor, " O"]:
        """One number per output; 0 for no tokens."""
        flat = numbers.flatten(1)
        return self.aggregator.combine(flat) if flat.shape[1] else flat.sum(1)

    def _magnitudes(self, numbers: Float[Tensor, "X D"]) -> Float[Tensor, " X"]:
        """Magnitude of each token on its own."""
        return self.aggregator.combine(numbers.detach().to("cpu", torch.float64)).abs()

    def _total(self, values: Float[Tensor, "F O"], other: Float[Tensor, "O X D"]) -> Float[Tensor, " O"] | None:
        """Divisors of the values, for each output."""
        if self.normalize == "none":
            return None
        total = values.abs().sum(0)
        if self.normalize == "all":
            total = total + torch.stack([self._magnitudes(numbers).sum() for numbers in other])
        return torch.where(total > 0, total, 1.0)

    def _shares(self, scores: TokenScores, inside: Inside) -> tuple[float, float]:
        """Shares of the magnitude, for the whole target: of tokens without a feature, and these and special tokens."""
        whole = [self._magnitudes(scores.prompt[0])]
        lacking = [owner is None for owner in inside.feature_of]
        special = [lacks or token for lacks, token in zip(lacking, inside.special, strict=True)]
        if scores.generated is not None:
            whole.append(self._magnitudes(scores.generated[0]))
        total = float(torch.cat(whole).sum())
        parts = [float(whole[0][torch.tensor(chosen)].sum()) for chosen in (lacking, special)]
        return (parts[0] / total, parts[1] / total) if total else (0.0, 0.0)

    def _dims(self, scores: TokenScores, inside: Inside, n_features: int) -> dict[str, Any]:
        if not self.keep_dims:
            return {}
        sums = torch.stack([scores.of(feature, inside).sum(1) for feature in range(n_features)], dim=1)
        found = sums.to(torch.float32).numpy()
        found.setflags(write=False)
        return {"dims": found[0]} | ({"token_dims": found[1:]} if len(found) > 1 else {})

    def _notes(
        self, values: Float[Tensor, "F O"], total: Float[Tensor, " O"] | None, lacking: float, special: float
    ) -> list[str]:
        if total is None:
            return [_sink(special)] if special > MUCH else []
        if self.normalize == "features":
            left_out = f"; {lacking:.0%} of the scores' magnitude, on tokens without a feature, was left out"
            return ["the magnitudes of the values are scaled to add up to 1 for each output" + left_out * (lacking > 0)]
        given = float(values[:, 0].abs().sum() / total[0])
        return [
            "values are shares of the magnitude of all scores, those of tokens without a feature included; features "
            f"have {given:.0%} of it"
        ]


def _sink(share: float) -> str:
    return (
        f"{share:.0%} of the scores' magnitude falls on special tokens and tokens without a feature, such as a start "
        "token"
    )


def _picked(numbers: Float[Tensor, "O X D"], owners: tuple[int | None, ...], owner: int | None) -> Tensor:
    places = torch.tensor([i for i, found in enumerate(owners) if found == owner], dtype=torch.long)
    return numbers.detach()[:, places.to(numbers.device)].to("cpu", torch.float64)


def _all_outputs(values: Float[Tensor, "F O"], n_outputs: int) -> Float[Tensor, "F K"]:
    """The values, with NaN for target tokens that have none."""
    missing = n_outputs - values.shape[1]
    return values if not missing else torch.cat([values, values.new_full((len(values), missing), torch.nan)], dim=1)
