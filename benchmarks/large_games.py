"""Games of any number of features with known Shapley values, and longer prompts whose values are estimated once.

Tables of all coalitions end at about 12 features. Beyond that, values are known in closed form for games made of what
prompts are made of: a score that saturates, facts that are stated more than once, and a few strong features that
interact.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from real_games import MODEL
from torch import Tensor

import apportion as ap
from apportion.testing.games import KnownGame
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.samplers.leverage import LeverageSampler

__all__ = ["LargeGame", "PromptGame", "prompt_games", "synthetic_games"]

REFERENCE = 256
"""Evaluations behind the reference values of a prompt, per feature."""


class LargeGame(Protocol):
    """A game whose Shapley values are known."""

    name: str
    n: int

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]: ...

    @property
    def shapley(self) -> Float[np.ndarray, " F"]: ...


@dataclass(frozen=True)
class Saturating:
    """v(S) = log σ(the sum of the weights in S, minus a threshold): a target that is likely once enough is said.

    Attributes:
        name: name in tables.
        weights: whole numbers, so that sums can be counted.
        scale: steepness.
        threshold: weight at which the target has probability ½.
    """

    name: str
    weights: tuple[int, ...]
    scale: float
    threshold: float

    @property
    def n(self) -> int:
        """Number of features."""
        return len(self.weights)

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Compute v of each coalition."""
        return self._score(mask.double() @ torch.tensor(self.weights, dtype=torch.float64))

    def _score(self, total: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
        return torch.nn.functional.logsigmoid(self.scale * (total - self.threshold))

    @cached_property
    def shapley(self) -> Float[np.ndarray, " F"]:
        """Shapley values, from the number of coalitions of each size and weight that the other features form."""
        each = {weight: self._value(weight) for weight in set(self.weights)}
        return np.array([each[weight] for weight in self.weights])

    def _value(self, weight: int) -> float:
        others = list(self.weights)
        others.remove(weight)
        low = sum(w for w in others if w < 0)
        width = sum(abs(w) for w in others) + 1
        # Row s, column t: the probability that a random coalition of s of the others weighs low + t.
        chance = np.zeros((len(others) + 1, width))
        chance[0, -low] = 1.0
        for joined, w in enumerate(others):
            # Of the features so far, s are in the coalition: the new one among them with probability s / (joined + 1).
            sizes = np.arange(joined + 2)[:, None] / (joined + 1)
            moved = np.roll(chance[: joined + 1], w, axis=1)
            chance[: joined + 2] *= 1 - sizes
            chance[1 : joined + 2] += sizes[1:] * moved
        totals = torch.arange(low, low + width, dtype=torch.float64)
        gain = self._score(totals + weight) - self._score(totals)
        return float((chance @ gain.numpy()).mean())


@dataclass(frozen=True)
class Parities:
    """A sum of products of signs, +1 for a feature that is present and −1 for one that is absent.

    Many products of many features look like noise, as text with gaps has it. The Shapley values of one product over a
    set of odd size are equal shares of 2; over a set of even size they are 0.

    Attributes:
        name: name in tables.
        n: number of features.
        sets: the members of each product.
        coefficients: the factor of each product.
    """

    name: str
    n: int
    sets: tuple[tuple[int, ...], ...]
    coefficients: tuple[float, ...]

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Compute v of each coalition."""
        members, factors = self._members
        odd = ((~mask).double() @ members.T) % 2
        return (1 - 2 * odd) @ factors

    @cached_property
    def _members(self) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"]]:
        members = torch.zeros(len(self.sets), self.n, dtype=torch.float64)
        for row, chosen in enumerate(self.sets):
            members[row, list(chosen)] = 1.0
        return members, torch.tensor(self.coefficients, dtype=torch.float64)

    @cached_property
    def shapley(self) -> Float[np.ndarray, " F"]:
        """Shapley values."""
        members, factors = self._members
        sizes = members.sum(1)
        share = torch.where(sizes % 2 == 1, 2 * factors / sizes, 0.0)
        return (share @ members).numpy()


@dataclass(frozen=True)
class Sum:
    """The sum of games with the same features, whose Shapley values add up.

    Attributes:
        name: name in tables.
        games: the games.
        levels: groups of neighbours, for methods that drill down.
    """

    name: str
    games: tuple[LargeGame | KnownGame, ...]
    levels: tuple[ap.Level, ...] = ()

    @property
    def n(self) -> int:
        """Number of features."""
        return self.games[0].n

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Compute v of each coalition."""
        return torch.stack([game(mask) for game in self.games]).sum(0)

    @cached_property
    def shapley(self) -> Float[np.ndarray, " F"]:
        """Shapley values."""
        return np.sum([np.asarray(game.shapley) for game in self.games], axis=0)


NOISE = 0.1
"""Standard deviation of the noise, relative to that of the game over random coalitions."""


def synthetic_games(n: int, seed: int = 0) -> list[Sum]:
    """One game of each kind with ``n`` features, and noise."""
    rng = np.random.default_rng([n, seed])
    return [_with_noise(game, rng) for game in (_saturating(n, rng), _repeated(n, rng), _interacting(n, rng))]


def _with_noise(game: LargeGame | KnownGame, rng: np.random.Generator) -> Sum:
    n = game.n
    some = torch.from_numpy(rng.random((512, n)) < rng.random((512, 1)))
    sets = tuple(_some(n, int(rng.integers(min(4, n), n + 1)), rng) for _ in range(64))
    deviation = NOISE * float(game(some).std()) / len(sets) ** 0.5
    noise = Parities("noise", n, sets, tuple((deviation * rng.standard_normal(len(sets))).tolist()))
    return Sum(game.name.split("-")[0], (game, noise))


def _some(n: int, size: int, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.choice(n, size=size, replace=False).tolist())


def _strong_few(n: int, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Weights of which few are large: that of rank r is about 1/r, in random order."""
    return rng.permutation(1.0 / np.arange(1, n + 1)) * rng.choice([1.0, 1.0, 1.0, -1.0], size=n)


def _saturating(n: int, rng: np.random.Generator) -> Saturating:
    weights = np.rint(20 * _strong_few(n, rng)).astype(int)
    return Saturating("saturating", tuple(weights.tolist()), 0.25, 0.4 * float(weights.clip(0).sum()))


def _repeated(n: int, rng: np.random.Generator) -> KnownGame:
    """Facts that several features state, each as good as all; the rest counts by itself."""
    coefficients: Counter[tuple[int, ...]] = Counter()
    weights = _strong_few(n, rng)
    for i in range(n):
        coefficients[(i,)] += 0.5 * weights[i]
    places = rng.permutation(n)
    for fact in range(max(1, n // 8)):
        size = int(rng.integers(2, min(5, n) + 1))
        stated = tuple(sorted(places[np.arange(4 * fact, 4 * fact + size) % n].tolist()))
        _add_any_of(coefficients, stated, 1.0 / (1 + fact))
    return KnownGame("repeated", n, dict(coefficients))


def _add_any_of(coefficients: Counter[tuple[int, ...]], stated: tuple[int, ...], worth: float) -> None:
    """Add a game that is worth something as soon as one of some features is present."""
    for subset in range(1, 2 ** len(stated)):
        chosen = tuple(i for place, i in enumerate(stated) if subset >> place & 1)
        coefficients[chosen] += worth * (-1.0) ** (len(chosen) + 1)


def _interacting(n: int, rng: np.random.Generator) -> KnownGame:
    """Sets of up to five features, of which strong ones meet most often."""
    weights = _strong_few(n, rng)
    coefficients: Counter[tuple[int, ...]] = Counter({(i,): float(weights[i]) for i in range(n)})
    chance = np.abs(weights) / np.abs(weights).sum()
    for _ in range(2 * n):
        size = min(n, int(rng.choice([2, 3, 4, 5], p=[0.5, 0.25, 0.15, 0.1])))
        chosen = tuple(sorted(rng.choice(n, size=size, replace=False, p=chance).tolist()))
        coefficients[chosen] += float(rng.standard_normal() * np.abs(weights[list(chosen)]).mean())
    return KnownGame("interacting", n, dict(coefficients))


class PromptGame:
    """A long prompt for SmolLM2-135M, whose reference values come from many evaluations, kept in a file.

    Args:
        name: name in tables and of the file.
        prompt: prompt for ``Explainer.attribute``.
        target: target whose log-probability is the game's value.
        folder: folder of the file.
    """

    def __init__(self, name: str, prompt: object, target: str, folder: Path) -> None:
        self.name = name
        self._prompt, self._target = prompt, target
        self._path = folder / f"{name}.npz"
        self._known: dict[bytes, float] = {}
        self.n = 0
        self._open()
        drawn = LeverageSampler().sample(self.n, REFERENCE * self.n, torch.Generator().manual_seed(12345)).mask
        self.score(drawn)
        estimate = KernelShap().run(
            ap.Game.from_function(self, self.n),
            budget=len(drawn) + 2,
            rng=torch.Generator().manual_seed(12345),
            sampler=LeverageSampler(),
        )
        assert estimate.std_error is not None
        self.shapley: Float[np.ndarray, " F"] = estimate.values[:, 0].numpy()
        self.reference_error = float(estimate.std_error[:, 0].square().sum() / (self.shapley**2).sum())

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Look up v of each coalition; new ones are scored."""
        self.score(mask)
        return torch.tensor([self._known[key] for key in _keys(mask)], dtype=torch.float64)

    def score(self, mask: Bool[Tensor, "S F"]) -> None:
        """Score the coalitions that are not known, and keep them in the file."""
        new = {key: row for row, key in enumerate(_keys(mask)) if key not in self._known}
        if not new:
            return
        rows = mask[list(new.values())]
        started = time.perf_counter()
        result = _explainer().attribute(self._prompt, self._target, method=Listed(rows))
        self._known.update(zip(new, result.extras["values"].tolist(), strict=True))
        np.savez(self._path, keys=np.frombuffer(b"".join(self._known), np.uint8).reshape(len(self._known), -1),
                 values=np.array(list(self._known.values())), n=self.n, prompt=repr(self._prompt))  # fmt: skip
        print(f"{self.name}: {len(rows)} evaluations, {time.perf_counter() - started:.0f} s", file=sys.stderr)

    def _open(self) -> None:
        if not self._path.exists():
            full = Listed(None)
            result = _explainer().attribute(self._prompt, self._target, method=full)
            self.n = len(result.features)
            return
        with np.load(self._path) as stored:
            if str(stored["prompt"]) != repr(self._prompt):
                raise SystemExit(f"{self._path} was made with another prompt; delete it.")
            self.n = int(stored["n"])
            keys = [row.tobytes() for row in stored["keys"]]
            self._known = dict(zip(keys, stored["values"].tolist(), strict=True))


class Listed:
    """A method that evaluates given coalitions, or only the full one, and keeps the values."""

    estimand, requires = "none", frozenset()

    def __init__(self, mask: Bool[Tensor, "S F"] | None) -> None:
        self._mask = mask

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        mask = torch.ones(1, game.n_features, dtype=torch.bool) if self._mask is None else self._mask
        values = game.values(mask)
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs), extras={"values": values[:, 0].numpy()})


@functools.cache
def _explainer() -> ap.Explainer:
    return ap.Explainer(MODEL, progress=False)


def _keys(mask: Bool[Tensor, "S F"]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(mask.numpy(), axis=1)]


def prompt_games(folder: Path) -> list[PromptGame]:
    """Long prompts; what their files lack is scored first."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        PromptGame("letter", ap.Text(LETTER), " refund", folder),
        PromptGame("cities", ap.Text(CITIES, by=str.split, keep=[-1, -2, -3]), " Rome", folder),
    ]


LETTER = (
    "Last week I bought a laptop from your store. The screen was broken when it came and nobody answered my calls. "
    "I am very angry and I want my money back. Please send a"
)
CITIES = (
    "France has Paris, Spain has Madrid, Austria has Vienna, Japan has Tokyo, Peru has Lima, Cuba has Havana, "
    "Kenya has Nairobi, Egypt has Cairo, Italy has"
)
