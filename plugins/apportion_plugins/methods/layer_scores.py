"""Scores of what modules return or read: gradients times changes of activations, position by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, listing, shown
from apportion.game.game import Game
from apportion.protocols.inside import Inside, ModuleGradients, Side
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.completeness import Completeness
from apportion_plugins.methods.module_names import checked_layers, matching
from apportion_plugins.methods.token_scores import Summary, TokenScores

__all__ = ["Chosen", "LayerScores", "LayerSettings", "Maps", "estimate", "stacked"]

MOST_STARTS = 4
"""Number of tokens that a decoder may read before the target."""

Maps = Sequence[Mapping[str, Tensor]]
"""Tensors of modules by name, for the target and then for its contrast if it has one."""


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """Options that all methods at layers have, checked.

    Attributes:
        layers: names and patterns of modules; ``None`` for the input embeddings.
        at: what is scored of a module.
        summary: the way from scores of tokens to values.
    """

    layers: tuple[str, ...] | None
    at: Side
    summary: Summary

    @property
    def whole(self) -> bool:
        """Dimensions are needed until the end, because they are kept, or not only summed."""
        return self.summary.keep_dims or self.summary.aggregate != "sum"

    @classmethod
    def checked(cls, layers: object, at: object, summary: Summary) -> LayerSettings:
        """Check the options.

        Raises:
            InputError: ``layers`` are not names, or ``at`` is neither ``"output"`` nor ``"input"``.
        """
        if at not in ("output", "input"):
            raise InputError(f"at={shown(at)} must be 'output' or 'input'.")
        return cls(checked_layers(layers), "output" if at == "output" else "input", summary)

    def chosen(self, inside: Inside) -> Chosen:
        """The modules of a model that are meant.

        Raises:
            InputError: a name or pattern matches no module.
        """
        return Chosen(inside, matching(self.layers, inside.modules()), self.at)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The modules of a model that are scored.

    Attributes:
        inside: the model.
        names: names of the modules.
        at: what is scored of a module.
    """

    inside: Inside
    names: tuple[str, ...]
    at: Side

    def gradients(self, points: Float[Tensor, "B P D"], **settings: Any) -> ModuleGradients:
        """Values, activations and gradients; see ``Inside.module_gradients``.

        Raises:
            InputError: what a module returns or reads has no axis for positions.
            ScoreError: a gradient is not finite.
        """
        found = self.inside.module_gradients(points, self.names, side=self.at, **settings)
        for number, part in enumerate(found.activations):
            for name, one in part.items():
                self._check(name, number, one, len(points))
        return found

    def spans(self, name: str, number: int, length: int) -> tuple[slice, slice] | None:
        """Positions of the prompt's tokens, and of the target tokens that are read, in what a module returns or reads.

        Args:
            name: the module.
            number: number of the target, as in ``Inside.targets``.
            length: number of positions.

        Returns:
            ``None`` if there is another number of positions than the model reads.
        """
        inside = self.inside
        prompt, read = len(inside.prompt_ids), len(inside.targets[number]) - 1
        if inside.joint:
            return (slice(0, prompt), slice(prompt, length)) if length == prompt + read else None
        if _of_decoder(name):
            # A decoder reads a few tokens before the target, such as a start token and one for the language.
            before = length - read
            return (slice(0, 0), slice(before, length)) if 0 < before <= MOST_STARTS else None
        return (slice(0, prompt), slice(0, 0)) if length == prompt else None

    def _check(self, name: str, number: int, found: Tensor, rows: int) -> None:
        verb = "returns" if self.at == "output" else "reads"
        shape = list(found.shape)
        if len(found) != rows:
            raise InputError(
                f"The module {name!r} {verb} a tensor of shape {shape} for {rows} prompts: the same for all of them, "
                "or without an axis for them. It has no scores; leave it out of `layers`."
            )
        if found.ndim < 2 or self.spans(name, number, found.shape[1]) is None:
            raise InputError(
                f"The module {name!r} {verb} a tensor of shape {shape}, which has no axis for the positions of tokens. "
                "Name a module around it."
            )


@dataclass(slots=True)
class LayerScores:
    """Scores of modules, summed over points as they come.

    Attributes:
        chosen: the modules.
        changes: what gradients are multiplied with, ``Float[L, …]``, by name of the module.
        whole: dimensions are kept until the end; else they are summed at once, to save memory.
    """

    chosen: Chosen
    changes: Maps
    whole: bool
    _sums: list[dict[str, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self._sums = [{} for _ in self.changes]

    def add(self, gradients: Maps, weights: Float[Tensor, " B"]) -> None:
        """Add the scores at B points.

        Args:
            gradients: ``Float[O, B, L, …]`` by name.
            weights: weight of each point.
        """
        for sums, changes, part in zip(self._sums, self.changes, gradients, strict=True):
            for name, gradient in part.items():
                scores = self._scores(gradient, changes[name], weights)
                sums[name] = sums[name] + scores if name in sums else scores

    def of(self, name: str) -> TokenScores:
        """Scores of the tokens for a module, from the passes over the target and over its contrast."""
        inside, prompts, own = self.chosen.inside, [], None
        for number, sums in enumerate(self._sums):
            prompt, generated = self._spans(name, number)
            prompts.append(sums[name][:, prompt])
            if number == 0 and any(feature is not None for feature in inside.generated_feature_of):
                own = sums[name][:, generated]
        read = [part for part in prompts if part.shape[1]]
        blank = torch.zeros_like(self._sums[0][name][:, :1]).expand(-1, len(inside.prompt_ids), -1)
        if own is not None and not own.shape[1]:
            own = blank[:, :1].expand(-1, len(inside.generated_feature_of), -1)
        return TokenScores(torch.stack(read).sum(0) if read else blank, own)

    def all(self) -> TokenScores:
        """Scores of the tokens, with the dimensions of all modules side by side."""
        parts = [self.of(name) for name in self.chosen.names]
        own = [part.generated for part in parts if part.generated is not None]
        return TokenScores(torch.cat([part.prompt for part in parts], 2), torch.cat(own, 2) if own else None)

    def total(self, names: Sequence[str] | None = None) -> Float[Tensor, " O"]:
        """Sum of all scores of some modules, or of all of them, at all positions."""
        names = self.chosen.names if names is None else names
        return torch.stack([sums[name].double().sum((1, 2)) for sums in self._sums for name in names]).sum(0)

    def idle_notes(self) -> tuple[str, ...]:
        """A note on modules whose scores are all 0 although their activations change."""
        names = self.chosen.names
        idle = [
            name
            for name in names
            if not any(bool(sums[name].any()) for sums in self._sums)
            and any(bool(changes[name].any()) for changes in self.changes)
        ]
        if not idle or len(names) == 1:
            return ()
        return (
            f"{len(idle)} of {len(names)} modules ({listing(idle, limit=3)}) have scores of 0, because all that they "
            "do passes through other modules that are named; joint=False scores each on its own",
        )

    def on_target(self) -> float:
        """Sum of the scores for the whole target at target positions that belong to no feature."""
        inside, found = self.chosen.inside, 0.0
        owned = any(feature is not None for feature in inside.generated_feature_of)
        for number, sums in enumerate(self._sums):
            for name, one in sums.items():
                prompt, generated = self._spans(name, number)
                rest = torch.ones(one.shape[1], dtype=torch.bool)
                rest[prompt] = False
                if number == 0 and owned:
                    rest[generated] = False
                found += float(one[0, rest].double().sum())
        return found

    def _spans(self, name: str, number: int) -> tuple[slice, slice]:
        spans = self.chosen.spans(name, number, self._sums[number][name].shape[1])
        assert spans is not None  # ``Chosen.gradients`` has refused others
        return spans

    def _scores(
        self, gradient: Float[Tensor, "O B L ..."], change: Float[Tensor, "L ..."], weights: Float[Tensor, " B"]
    ) -> Float[Tensor, "O L D"]:
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        mean = torch.einsum("ob...,b->o...", gradient.to(dtype), weights.to(gradient.device, dtype))
        scores = (mean * change.to(mean)).reshape(*mean.shape[:2], -1)
        return (scores if self.whole else scores.sum(2, keepdim=True, dtype=torch.float64)).cpu()


def estimate(
    scores: LayerScores,
    summary: Summary,
    game: Game,
    *,
    estimand: str,
    extras: Mapping[str, Any] | None = None,
    **more: Any,
) -> Estimate:
    """Make the estimate of a method at layers.

    ``extras`` gets ``modules``, their names; ``module_values``, Float[M, F], the values of each module for the whole
    target; ``module_token_values``, Float[M, T, F], the same for each target token, if these are scored;
    ``target_positions``, the sum of the scores for the whole target at target positions without a feature. With
    ``keep_dims`` it gets ``module_dims``: for each module, Float[F, D], the sum of a feature's scores in each
    dimension. None of these is normalised.

    Args:
        scores: the scores.
        summary: the way from them to values.
        game: the game.
        estimand: name of what the sum of a feature's scores estimates.
        extras: more to keep.
        **more: more arguments of ``Summary.estimate``.
    """
    inside, names = scores.chosen.inside, scores.chosen.names
    n = game.n_features
    parts = [scores.of(name) for name in names]
    values = torch.stack([summary.values(part, inside, n) for part in parts])  # M F O
    kept: dict[str, Any] = {
        "modules": list(names),
        "module_values": _fixed(values[:, :, 0]),
        "target_positions": scores.on_target(),
    }
    if values.shape[2] > 1:
        kept["module_token_values"] = _fixed(values[:, :, 1:].transpose(1, 2))
    if summary.keep_dims:
        kept["module_dims"] = [_dims(part, inside, n) for part in parts]
    return Summary(summary.aggregate, summary.normalize).estimate(
        scores.all(),
        inside,
        n_features=n,
        n_outputs=game.n_outputs,
        estimand=estimand,
        extras=kept | dict(extras or {}),
        **more,
    )


def stacked(complete: Sequence[Completeness]) -> Mapping[str, np.ndarray]:
    """Extras on the completeness of several modules: a row for each."""
    rows = [one.extras() for one in complete]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _dims(scores: TokenScores, inside: Inside, n_features: int) -> np.ndarray:
    """Sums over the tokens of each feature for the whole target, Float[F, D] in fp32."""
    sums = [scores.of(feature, inside)[0].sum(0) for feature in range(n_features)]
    return _fixed(torch.stack(sums).to(torch.float32))


def _fixed(tensor: Tensor) -> np.ndarray:
    """A read-only array, because observers and views share a result with the user."""
    found = np.array(tensor.numpy())
    found.setflags(write=False)
    return found


def _of_decoder(name: str) -> bool:
    """True for a module that reads the target; the keys and values of cross-attention are of the prompt."""
    parts = name.lower().split(".")
    crossing = any(part.startswith("enc") for part in parts[1:]) and parts[-1][0] in "kv"
    return "decoder" in parts and not crossing
