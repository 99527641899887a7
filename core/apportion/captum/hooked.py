"""Gradients at modules of any language model, one target token at a time: the slow way, by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from apportion.captum.refusals import positive, require
from apportion.game.integration import RULES, checked_rule, nodes

__all__ = ["Path", "Scores", "TokenFunction", "TokenFunctions", "expected", "integrated", "slopes"]

Grad = Mapping[str, Any] | None
"""Further arguments of ``torch.autograd.grad``."""
AT_ONCE = 16
"""Points in a batch, unless the user sets their number."""


@dataclass(frozen=True)
class TokenFunction:
    """One target token, as a function of perturbed inputs.

    Attributes:
        forward: maps perturbed tensors ``[B, F]`` to the token's score, ``[B]``; differentiable.
        present: the tensor of the input, ``[1, F]``.
        absent: tensors of baselines, ``[N, F]``.
    """

    forward: Callable[[Tensor], Float[Tensor, " B"]]
    present: Tensor
    absent: Tensor


class TokenFunctions(Protocol):
    """Makes the function of a target token."""

    def function_of(self, inputs: Tensor, baselines: object, arguments: object) -> TokenFunction:
        """The function that ``attribute`` of a method differentiates."""


@dataclass(frozen=True)
class Path:
    """Points between baseline (0) and input (1), as in Captum.

    Attributes:
        steps: number of points.
        rule: how they are placed and weighed.
        at_once: most points in a batch.

    Raises:
        AssertionError: the rule is unknown, or a number is below 1.
    """

    steps: int
    rule: str
    at_once: int | None

    def __post_init__(self) -> None:
        require(self.rule in RULES, f"Given method {self.rule!r:.40} is not one of {', '.join(RULES)}")
        positive("internal_batch_size", self.at_once or 1)
        checked_rule(self.rule, positive("n_steps", self.steps))

    def points(self) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
        """Places and weights, which add up to 1."""
        return nodes(self.rule, self.steps, torch.zeros((), dtype=torch.float64))


@dataclass(frozen=True)
class Scores:
    """Gradients and scores at modules.

    Attributes:
        gradients: mean gradient at each module, ``[1, L, D]``.
        products: the same, of gradients times activations or their changes.
        each: sum of the products in all modules, for each sample, ``[N]``.
        gained: change of the output that this should be, ``[N]``.
    """

    gradients: list[Tensor]
    products: list[Tensor]
    each: Float[Tensor, " N"]
    gained: Float[Tensor, " N"]

    def scores(self, *, multiplied: bool) -> list[Tensor]:
        """The products, or only the gradients."""
        return self.products if multiplied else self.gradients

    def delta(self) -> Float[Tensor, " N"]:
        """Sum of the products minus the change of the output."""
        return self.each - self.gained


def slopes(function: TokenFunction, layers: Sequence[nn.Module], *, at_input: bool, options: Grad = None) -> Scores:
    """Gradients at the input, times activations."""
    with torch.enable_grad(), _seen(layers, at_input=at_input) as seen:
        value = function.forward(function.present)
        activations = _in_order(seen, layers)
        found = _gradients(value, activations, options)
    products = [slope * own.detach() for slope, own in zip(found, activations, strict=True)]
    return Scores(found, products, _totals(products), value.detach())


def integrated(
    function: TokenFunction, layers: Sequence[nn.Module], path: Path, *, at_input: bool, options: Grad = None
) -> Scores:
    """Mean gradients on the path from the baseline's activations to those of the input, times the difference."""
    require(len(function.absent) == 1, f"integrated gradients take one baseline, not {len(function.absent)}")
    value, present = _activations(function, function.present, layers, at_input=at_input)
    other, absent = _activations(function, function.absent, layers, at_input=at_input)
    changes = [own - start for own, start in zip(present, absent, strict=True)]
    total = [torch.zeros_like(own) for own in present]
    places, weights = path.points()
    at_once = min(path.at_once or AT_ONCE, len(places))
    for start in range(0, len(places), at_once):
        place, weight = places[start : start + at_once], weights[start : start + at_once]
        points = [own + _along(place, change) * change for own, change in zip(absent, changes, strict=True)]
        found = _gradients_at(function, layers, points, at_input=at_input, options=options)
        for sum_, slope in zip(total, found, strict=True):
            sum_ += (_along(weight, slope) * slope).sum(0, keepdim=True)
    products = [slope * change for slope, change in zip(total, changes, strict=True)]
    return Scores(total, products, _totals(products), value - other)


def expected(
    function: TokenFunction,
    layers: Sequence[nn.Module],
    shares: Float[Tensor, " N"],
    chosen: Int[Tensor, " N"],
    *,
    at_input: bool,
) -> Scores:
    """Mean gradients at points a share of the way from a chosen baseline to the input, times the difference."""
    value, present = _activations(function, function.present, layers, at_input=at_input)
    other, absent = _activations(function, function.absent, layers, at_input=at_input)
    absent = [rows[chosen] for rows in absent]
    changes = [own - rows for own, rows in zip(present, absent, strict=True)]
    points = [rows + _along(shares, change) * change for rows, change in zip(absent, changes, strict=True)]
    found = _gradients_at(function, layers, points, at_input=at_input, options=None)
    products = [slope * change for slope, change in zip(found, changes, strict=True)]
    gradients, scores = ([part.mean(0, keepdim=True) for part in parts] for parts in (found, products))
    return Scores(gradients, scores, _totals(products), value - other[chosen])


def _activations(
    function: TokenFunction, rows: Tensor, layers: Sequence[nn.Module], *, at_input: bool
) -> tuple[Float[Tensor, " B"], list[Tensor]]:
    with torch.no_grad(), _seen(layers, at_input=at_input) as seen:
        values = function.forward(rows)
        return values, [own.detach() for own in _in_order(seen, layers)]


def _gradients_at(
    function: TokenFunction, layers: Sequence[nn.Module], points: Sequence[Tensor], *, at_input: bool, options: Grad
) -> list[Tensor]:
    """Gradients where modules have these activations, ``[B, L, D]``, whatever they read."""
    given = [point.detach().requires_grad_() for point in points]
    rows = function.present.expand(len(points[0]), -1)
    with torch.enable_grad(), _hooks(layers, lambda number, own: given[number].to(own.dtype), at_input=at_input):
        return _gradients(function.forward(rows), given, options)


def _gradients(values: Float[Tensor, " B"], at: Sequence[Tensor], options: Grad) -> list[Tensor]:
    found = torch.autograd.grad(values.sum(), list(at), **{"allow_unused": True, **(options or {})})
    unused = [number for number, slope in enumerate(found) if slope is None]
    require(
        not unused,
        f"the output does not depend on the layers {unused} of the list, because everything passes through the others, "
        "whose activations are given. Score them alone",
    )
    return list(found)


@contextmanager
def _seen(layers: Sequence[nn.Module], *, at_input: bool) -> Iterator[Mapping[int, Tensor]]:
    """Collect what modules return or read, by number, once the model has run; with gradients if these are enabled."""
    seen: dict[int, Tensor] = {}

    def keep(number: int, own: Tensor) -> Tensor:
        leaf = own if own.requires_grad or not torch.is_grad_enabled() else own.detach().requires_grad_()
        seen[number] = leaf
        return leaf

    with _hooks(layers, keep, at_input=at_input):
        yield seen


def _in_order(seen: Mapping[int, Tensor], layers: Sequence[nn.Module]) -> list[Tensor]:
    """The tensors of all modules.

    Raises:
        AssertionError: the model did not run one of them.
    """
    unused = [type(layer).__name__ for number, layer in enumerate(layers) if number not in seen]
    require(not unused, f"the model does not run these layers: {', '.join(unused)}")
    return [seen[number] for number in range(len(layers))]


@contextmanager
def _hooks(layers: Sequence[nn.Module], change: Callable[[int, Tensor], Tensor], *, at_input: bool) -> Iterator[None]:
    """Change what modules return or read while this is open; of several tensors, the first."""

    def changed(number: int, whole: Any) -> Any:
        if isinstance(whole, tuple):
            return (changed(number, whole[0]), *whole[1:])
        verb = "reads" if at_input else "returns"
        require(isinstance(whole, Tensor), f"layer {number} {verb} {type(whole).__name__}, not a tensor")
        require(whole.is_floating_point(), f"layer {number} {verb} {whole.dtype}, which has no gradient")
        return change(number, whole)

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            if at_input:
                handle = layer.register_forward_pre_hook(lambda module, args, number=number: changed(number, args))
            else:
                handle = layer.register_forward_hook(lambda module, args, out, number=number: changed(number, out))
            stack.callback(handle.remove)
        yield


def _along(numbers: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """One number for each row, with the dimensions of another tensor."""
    return numbers.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _totals(products: Sequence[Tensor]) -> Float[Tensor, " N"]:
    return torch.stack([part.flatten(1).sum(1) for part in products]).sum(0)
