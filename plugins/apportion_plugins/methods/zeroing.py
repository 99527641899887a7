"""Changes of each layer's output when the value vector of one token is zero in that layer alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.errors import CapabilityError
from apportion.protocols.inside import Edits, Inside
from apportion_plugins.methods.picking import Picked, heads_of
from apportion_plugins.methods.value_modules import ValueModule, columns

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METRICS", "PROOF", "ValueZeros"]

Distance = Callable[[Float[Tensor, "I D"], Float[Tensor, "B I D"]], Float[Tensor, "B I"]]


def _cosine(before: Float[Tensor, "I D"], after: Float[Tensor, "B I D"]) -> Float[Tensor, "B I"]:
    return (1 - torch.cosine_similarity(before[None], after, dim=-1, eps=1e-300)).clamp(min=0)


METRICS: Mapping[str, Distance] = {
    "cosine": _cosine,
    "euclidean": lambda before, after: (after - before[None]).norm(dim=-1),
}
"""Distances between what a layer returns before and after, by name: 1 − cosine similarity, and the norm."""

PROOF = 4
"""Rows that prove where values are: as the model is, with values zero, scaled, and zero in the chosen heads."""
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Rounding that the proof allows, as a fraction of the largest number."""
COARSE = 0.02
"""The same for half precision."""


@dataclass(slots=True)
class ValueZeros:
    """Zeroes value vectors, row by row, in many layers at once.

    In each layer, every row of a batch reads the same: what the layer before returned is replaced, in all rows, by what
    it returns in the model as it is. So one forward pass per token has the changes of all layers, each on its own.

    Args:
        inside: the model's internals.
        modules: where the values are, one per layer.
        heads: the heads whose values are zeroed, for each of the modules.
        distance: distance between what a layer returns before and after.
        last: number of last positions whose changes are wanted; ``None`` for all.
    """

    inside: Inside
    modules: Sequence[ValueModule]
    heads: Sequence[Picked]
    distance: Distance
    last: int | None
    _parts: Mapping[str, nn.Module] = field(init=False)
    _layouts: dict[str, str] = field(default_factory=dict, init=False)
    _clean: dict[str, Float[Tensor, "L D"]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._parts = self.inside.modules()

    @property
    def length(self) -> int:
        """Number of tokens that the layers read."""
        return len(self._clean[self.modules[0].layer])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that layers return."""
        return self._clean[self.modules[0].layer].dtype

    def prove(self) -> None:
        """Read the model as it is, and prove where its values are.

        Raises:
            CapabilityError: they are not where they are supposed to be.
        """
        tried = max(len(module.layouts) for module in self.modules)
        for attempt in range(tried):
            layouts = {one.name: one.layouts[min(attempt, len(one.layouts) - 1)] for one in self.modules}
            proof = _Proof(self, layouts)
            self._read(PROOF, proof.edits())
            wrong = proof.wrong
            if wrong is None:
                self._layouts, self._clean = layouts, proof.clean
                return
        assert wrong is not None
        raise CapabilityError(
            f"The module {wrong!r} does not seem to return this model's value vectors: when they are set to zero, "
            "attention still returns something, or when they are multiplied, what it returns is not. Name the modules "
            f"that return value vectors with value_modules=,{self._in_float32()} or use method='attention'."
        )

    def _in_float32(self) -> str:
        """Advice to a model of half precision, whose rounding may be the cause."""
        half = self.inside.embeddings().dtype.itemsize < 4
        return " or load the model with dtype='float32', in case rounding is the cause," if half else ""

    def changes(self, tokens: Sequence[int]) -> Float[Tensor, "M S I"]:
        """Changes of each layer at I positions, with the value vector of each of S tokens at zero."""
        at_once, found = self.inside.batch_rows, []
        for start in range(0, len(tokens), at_once):
            part = torch.tensor(tokens[start : start + at_once])
            measure = _Measure(self, part)
            self._read(len(part), measure.edits())
            found.append(torch.stack([measure.found[one.layer] for one in self.modules]))
        return torch.cat(found, dim=1)

    def columns(self, module: ValueModule, width: int, layout: str) -> Int[Tensor, "G D"] | None:
        """Columns of each value head of a module, in a layout."""
        return columns(layout, width, self._parts[module.attention])

    def chosen(self, module: ValueModule, width: int) -> Int[Tensor, " C"]:
        """Columns that are zeroed."""
        every = self.columns(module, width, self._layouts[module.name])
        assert every is not None
        return every[self.picked(module, len(every))].flatten()

    def picked(self, module: ValueModule, count: int) -> list[int]:
        """Numbers of the heads that are zeroed, among so many."""
        picked = next(picked for one, picked in zip(self.modules, self.heads, strict=True) if one is module)
        return heads_of(picked, count, module.attention, "value head")

    def clean(self, layer: str) -> Float[Tensor, "L D"]:
        """Output of a layer in the model as it is."""
        return self._clean[layer]

    def _read(self, rows: int, edits: Edits) -> None:
        with torch.no_grad():
            self.inside.values(self.inside.embeddings()[None].expand(rows, -1, -1), edits=edits)


@dataclass(slots=True)
class _Measure:
    """Edits that zero the value vector of one token in each row, and measure what each layer then returns."""

    zeros: ValueZeros
    tokens: Int[Tensor, " B"]
    found: dict[str, Float[Tensor, "B I"]] = field(default_factory=dict)

    def edits(self) -> Edits:
        """The edits, for one forward pass."""
        return Edits(
            outputs={one.name: partial(self._zero, one) for one in self.zeros.modules}
            | {one.layer: partial(self._compare, one.layer) for one in self.zeros.modules}
        )

    def _zero(self, one: ValueModule, _: nn.Module, __: Tensor | None, output: Tensor) -> Tensor:
        if one.layer in self.found:  # the pass of a contrast
            return output
        new, rows = output.clone(), torch.arange(len(output))
        where = self.zeros.chosen(one, output.shape[-1])
        new[rows[:, None], self.tokens[:, None], where[None]] = 0
        return new

    def _compare(self, layer: str, _: nn.Module, __: Tensor | None, output: Tensor) -> Tensor:
        if layer in self.found:
            return output
        clean, last = self.zeros.clean(layer), self.zeros.last
        part = slice(None) if last is None else slice(len(clean) - last, None)
        before, after = clean[part].to("cpu", torch.float64), output[:, part].to("cpu", torch.float64)
        self.found[layer] = self.zeros.distance(before, after)
        return clean.to(output)[None].expand_as(output)


@dataclass(slots=True)
class _Proof:
    """Edits that show whether values are in some columns of what modules return.

    What reads the mixed values must read nothing if they are zero, and a multiple if they are multiplied. Then the
    columns have all values, and nothing of queries or keys, because a softmax would not multiply. Each layer has
    another factor, so that no layer attends to values of another one either.
    """

    zeros: ValueZeros
    layouts: Mapping[str, str]
    clean: dict[str, Float[Tensor, "L D"]] = field(default_factory=dict)
    wrong: str | None = None
    _every: dict[str, Int[Tensor, "G D"]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def edits(self) -> Edits:
        """The edits, for one forward pass over ``PROOF`` rows."""
        modules = self.zeros.modules
        outputs = {one.name: partial(self._change, one) for one in modules}
        outputs |= {one.layer: partial(self._restore, one.layer) for one in modules}
        outputs |= {one.attention: partial(self._attended, one) for one in modules if one.output is None}
        return Edits(outputs, {one.output: partial(self._mixed, one) for one in modules if one.output is not None})

    def _change(self, one: ValueModule, _: nn.Module, __: Tensor | None, output: Tensor) -> Tensor:
        if one.layer in self.clean:  # the pass of a contrast
            return output
        every = self.zeros.columns(one, output.shape[-1], self.layouts[one.name])
        alike = output.ndim == 3 and len(output) == PROOF and _close(output, output[:1].expand_as(output), output[0])
        if every is None or not alike:  # rows differ if they know of zeroes in earlier layers
            self._fail(one)
            return output
        self._every[one.name] = every
        new = output.clone()
        new[1][:, every.flatten()] = 0
        new[2][:, every.flatten()] *= self._factor(one)
        new[3][:, every[self.zeros.picked(one, len(every))].flatten()] = 0
        return new

    def _mixed(self, one: ValueModule, _: nn.Module, mixed: Tensor) -> Tensor:
        """Look at what reads the mixed values of all heads, one head after the other."""
        if one.layer not in self.clean and one.name in self._every:
            self._seen.add(one.name)
            every = self._every[one.name]
            heads = _by_head(mixed, len(every))
            plain, none, scaled, some = heads
            picked = torch.zeros(len(every), dtype=torch.bool, device=mixed.device)
            picked[self.zeros.picked(one, len(every))] = True
            right = bool((none == 0).all()) and _close(scaled, self._factor(one) * _wide(plain), scaled)
            if not bool(picked.all()):
                right = right and heads.shape[-2] == len(every) and _only(some, plain, picked)
            if not right:
                self._fail(one)
        return mixed

    def _attended(self, one: ValueModule, _: nn.Module, __: Tensor | None, output: Tensor) -> Tensor:
        """Look at what attention returns, which is the same everywhere without values but for a bias."""
        if one.layer not in self.clean and one.name in self._every:
            self._seen.add(one.name)
            plain, none, scaled = output[0], output[1], output[2]
            alike = _close(none, none[:1].expand_as(none), plain)
            right = _close(_wide(scaled) - _wide(none), self._factor(one) * (_wide(plain) - _wide(none)), scaled)
            some = len(self.zeros.picked(one, len(self._every[one.name]))) < len(self._every[one.name])
            if some or not (alike and right and bool((plain != none).any())):
                self._fail(one)
        return output

    def _restore(self, layer: str, _: nn.Module, __: Tensor | None, output: Tensor) -> Tensor:
        if layer in self.clean:
            return output
        if output.ndim != 3 or len(output) != PROOF:
            raise CapabilityError(f"The layer {layer!r} returns {list(output.shape)}, not a state for each token.")
        for one in self.zeros.modules:
            if one.layer == layer and one.name not in self._seen:
                self._fail(one)
        self.clean[layer] = output[0].detach().clone()
        return self.clean[layer][None].expand_as(output)

    def _factor(self, one: ValueModule) -> float:
        return 2 + self.zeros.modules.index(one) / len(self.zeros.modules)

    def _fail(self, one: ValueModule) -> None:
        self.wrong = self.wrong or one.name


def _by_head(mixed: Float[Tensor, "B L W"], count: int) -> Float[Tensor, "B L G D"]:
    """Mixed values of each value head; of all together, if they cannot be told apart."""
    rows, tokens, width = mixed.shape
    return mixed.reshape(rows, tokens, count if width % count == 0 else 1, -1)


def _wide(numbers: Tensor) -> Tensor:
    """Numbers in a precision that rounds no product or difference of them noticeably."""
    return numbers.to("cpu", torch.float64)


def _close(found: Tensor, expected: Tensor, scale: Tensor) -> bool:
    """True if numbers agree as far as the rounding of ``scale``, which has their magnitude and the model's dtype."""
    allowed = ROUNDING.get(scale.dtype, COARSE) * float(scale.abs().max())
    return bool((_wide(found) - _wide(expected)).abs().max() <= allowed)


def _only(found: Float[Tensor, "L G D"], plain: Float[Tensor, "L G D"], picked: Bool[Tensor, " G"]) -> bool:
    """True if the picked heads are zero, and the others as they were."""
    return bool((found[:, picked] == 0).all()) and _close(found[:, ~picked], plain[:, ~picked], plain)
