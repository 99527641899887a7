"""Values and gradients of prompts given by their embeddings, within the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from apportion.errors import BatchTooLargeError, InputError
from apportion.protocols.inside import (
    NO_EDITS,
    Edits,
    EmbeddedBatch,
    Gradients,
    InsideSession,
    ModuleGradients,
    Side,
)
from apportion.scoring.readout import Readout

__all__ = ["EmbeddedReadout", "ModulesToRead", "Pass"]

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass over B prompts given by their embeddings.

    Attributes:
        points: embeddings of the prompts, without the prefix.
        prefix: tokens before each prompt, which get no gradient.
        following: embeddings of the target tokens that are read; ``None`` for the target's own.
        edits: changes to what modules return or read.
        together: edits compare the prompts, so that all are read in one batch.
        ids: tokens of the full prompt, with the prefix.
    """

    points: Float[Tensor, "B P D"]
    prefix: tuple[int, ...] = ()
    following: Float[Tensor, "B N D"] | None = None
    edits: Edits = NO_EDITS
    together: bool = False
    ids: tuple[int, ...] = ()

    def rows(self, part: slice) -> Pass:
        """The same pass over some of the prompts."""
        following = self.following
        return replace(self, points=self.points[part], following=None if following is None else following[part])

    def batch(self, target: tuple[int, ...], *, main: bool, edits: Edits | None = None) -> EmbeddedBatch:
        """The batch of a target; ``following`` belongs to the main one, not to its contrast."""
        following = self.following if main else None
        edits = self.edits if edits is None else edits
        return EmbeddedBatch(self.points, target, self.prefix, following, edits, self.ids)


@dataclass(frozen=True, slots=True)
class ModulesToRead:
    """Modules whose gradients are wanted.

    Attributes:
        names: their names.
        side: what they return or read.
        given: activations that take the place of their own, one mapping per target; empty for their own.
    """

    names: tuple[str, ...]
    side: Side = "output"
    given: tuple[Mapping[str, Tensor], ...] = ()

    def rows(self, part: slice) -> ModulesToRead:
        """The same modules, for some of the prompts."""
        return replace(self, given=tuple({name: one[part] for name, one in given.items()} for given in self.given))


class EmbeddedReadout:
    """Reads values and gradients of embeddings with a session.

    Args:
        session: the session.
        readout: turns logits into values of the target.
    """

    def __init__(self, session: InsideSession, readout: Readout) -> None:
        self._session = session
        self._readout = readout

    def values(self, one: Pass, *, differentiable: bool = True) -> Float[Tensor, "B K"]:
        """Values of prompts; differentiable, if that is wanted and the target function is."""
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable), self._read(one) as values:
            return values

    def rows_at_once(self, prompt: int, extra: int = 0) -> int:
        """Number of prompts of this length that fit the memory budget, with backward passes; 0 if not even one.

        Args:
            prompt: tokens of a prompt.
            extra: bytes that each prompt takes on top.
        """
        return int(self._session.info.memory_budget // max(1, self.row_bytes(prompt) + extra))

    def row_bytes(self, prompt: int) -> int:
        """Upper estimate of the memory of one prompt of this length, with its backward passes, in bytes."""
        return sum(self._session.graph_bytes(prompt, len(ids)) for ids in self._readout.targets)

    def gradients(self, one: Pass, *, tokens: bool) -> Gradients:
        """Values and gradients with respect to embeddings."""

        def read(part: slice, recompute: bool) -> Gradients:
            piece = one.rows(part)
            points = piece.points.detach().requires_grad_()
            following = None if piece.following is None else piece.following.detach().requires_grad_()
            leaf = replace(piece, points=points, following=following)
            with self._read(leaf, recompute=recompute) as values:
                leaves = [points] if following is None else [points, following]
                prompt, *generated = self._slopes(values, leaves, tokens=tokens)
                return Gradients(values.detach(), prompt, generated[0] if generated else None)

        return _joined(self._in_parts(one, read))

    def module_gradients(
        self, one: Pass, modules: ModulesToRead, *, tokens: bool, slopes: bool = True
    ) -> ModuleGradients:
        """Values and gradients with respect to what modules return or read; without ``slopes``, no gradients."""

        def read(part: slice, recompute: bool) -> ModuleGradients:
            piece, chosen = one.rows(part), modules.rows(part)
            # The graph reaches all modules, even if the user has frozen the weights.
            leaf = replace(piece, points=piece.points.detach().requires_grad_())
            seen: list[dict[str, Tensor]] = [{} for _ in self._readout.targets]
            edits = [
                _looking(chosen, found, number, piece.edits, again=recompute and slopes)
                for number, found in enumerate(seen)
            ]
            with (
                torch.set_grad_enabled(slopes),
                self._read(leaf, recompute=recompute and slopes, edits=edits) as values,
            ):
                leaves = [found[name] for found in seen for name in chosen.names]
                each = iter(self._slopes(values, leaves, tokens=tokens) if slopes else ())
                gradients = tuple({name: next(each) for name in chosen.names} for _ in seen if slopes)
            activations = tuple({name: found[name].detach() for name in chosen.names} for found in seen)
            rows = len(piece.points)
            return ModuleGradients(
                values.detach(),
                tuple({name: _by_prompt(part, rows) for name, part in one.items()} for one in activations),
                tuple({name: _by_prompt(part, rows, dim=1) for name, part in one.items()} for one in gradients),
            )

        return _modules_joined(self._in_parts(one, read))

    def _in_parts(self, one: Pass, read: Callable[[slice, bool], Found]) -> list[Found]:
        """Read as many prompts at once as fit into memory; fewer if memory runs out."""
        total = len(one.points)
        least = total if one.together else 1
        fits = self.rows_at_once(len(one.prefix) + one.points.shape[1])
        at_once, done = max(least, min(fits, total)), 0
        found: list[Found] = []
        with torch.inference_mode(False), torch.enable_grad():
            while done < total:
                try:
                    found.append(read(slice(done, done + at_once), fits < least))
                except BatchTooLargeError:
                    if at_once <= least:
                        raise
                    at_once = at_once // 2
                    continue
                done += at_once
        return found

    @contextmanager
    def _read(
        self, one: Pass, *, recompute: bool = False, edits: Sequence[Edits] | None = None
    ) -> Iterator[Float[Tensor, "B K"]]:
        """Context of one forward pass per target, and of backward passes from the values."""
        readout, targets = self._readout, self._readout.targets
        with ExitStack() as passes:
            logits = []
            for number, ids in enumerate(targets):
                batch = one.batch(ids, main=number == 0, edits=None if edits is None else edits[number])
                logits.append(passes.enter_context(self._session.forward(batch, recompute=recompute)))
            yield readout.applied(*(readout.scores_of(part, ids) for part, ids in zip(logits, targets, strict=True)))

    def _slopes(
        self, values: Float[Tensor, "B K"], leaves: Sequence[Tensor], *, tokens: bool
    ) -> list[Float[Tensor, "O B ..."]]:
        """Gradients of the whole target and, if wanted, of each token: one backward pass each.

        The gradient of a whole target that is the sum of its tokens is the sum of theirs.
        """
        outputs = values.sum(0)
        summed = tokens and self._readout.additive
        wanted = outputs[1:] if summed else outputs if tokens else outputs[:1]
        found: list[list[Tensor]] = [[] for _ in leaves]
        for number, output in enumerate(wanted):
            last = number == len(wanted) - 1
            slopes = torch.autograd.grad(output, leaves, retain_graph=not last, allow_unused=True)
            for slope, leaf, column in zip(slopes, leaves, found, strict=True):
                column.append(torch.zeros_like(leaf) if slope is None else slope)
        return [torch.stack([_sum(column), *column] if summed else column) for column in found]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0) if len(parts) > 1 else parts[0]


def _looking(modules: ModulesToRead, found: dict[str, Tensor], number: int, others: Edits, *, again: bool) -> Edits:
    """Edits that keep what modules return or read in ``found``, after it was replaced if activations are given.

    Args:
        modules: the modules.
        found: what they return or read, by name.
        number: number of the target that is read.
        others: edits that come before.
        again: layers are computed again in backward passes.
    """

    def keep(name: str, own: Tensor) -> Tensor:
        if name not in found:
            found[name] = _leaf(name, own, modules.given[number][name] if modules.given else None)
        elif not again:
            raise InputError(
                f"The module {name!r} is called more than once in a forward pass, so it has no activations of its own. "
                "Name a module around it."
            )
        # A copy, because some models add to what a module has returned in place.
        return (found[name] if modules.given or not own.requires_grad else own).clone()

    def output(module: nn.Module, read: Tensor | None, own: Tensor, *, name: str) -> Tensor:
        before = others.outputs.get(name)
        return keep(name, own if before is None else before(module, read, own))

    def reading(module: nn.Module, own: Tensor, *, name: str) -> Tensor:
        before = others.inputs.get(name)
        return keep(name, own if before is None else before(module, own))

    if modules.side == "output":
        return Edits({**others.outputs, **{name: partial(output, name=name) for name in modules.names}}, others.inputs)
    return Edits(others.outputs, {**others.inputs, **{name: partial(reading, name=name) for name in modules.names}})


def _leaf(name: str, own: Tensor, given: Tensor | None) -> Tensor:
    """The tensor whose gradient is wanted."""
    if not own.is_floating_point():
        raise InputError(f"The module {name!r} reads or returns {own.dtype}, which has no gradient.")
    if given is None:
        return own if own.requires_grad else own.detach().requires_grad_()
    if given.shape != own.shape and given.flatten(0, 1).shape == own.shape:
        given = given.flatten(0, 1)  # as ``_by_prompt`` has laid it out
    if given.shape != own.shape:
        raise InputError(
            f"The activations given for the module {name!r} have the shape {list(given.shape)}; its own have "
            f"{list(own.shape)}."
        )
    return given.detach().to(own).requires_grad_()


def _by_prompt(found: Tensor, rows: int, dim: int = 0) -> Tensor:
    """Tensors of modules that read the tokens of all prompts in one sequence, with an axis for the prompts."""
    size = found.shape[dim]
    if found.ndim != dim + 2 or size == rows or size % rows:
        return found
    return found.reshape(*found.shape[:dim], rows, size // rows, *found.shape[dim + 1 :])


def _joined(parts: Sequence[Gradients]) -> Gradients:
    if len(parts) == 1:
        return parts[0]
    generated = [part.generated for part in parts if part.generated is not None]
    return Gradients(
        torch.cat([part.values for part in parts]),
        torch.cat([part.prompt for part in parts], dim=1),
        torch.cat(generated, dim=1) if generated else None,
    )


def _modules_joined(parts: Sequence[ModuleGradients]) -> ModuleGradients:
    def joined(maps: Sequence[tuple[Mapping[str, Tensor], ...]], dim: int) -> tuple[Mapping[str, Tensor], ...]:
        return tuple(
            {name: torch.cat([one[name] for one in group], dim) for name in group[0]}
            for group in zip(*maps, strict=True)
        )

    if len(parts) == 1:
        return parts[0]
    return ModuleGradients(
        torch.cat([part.values for part in parts]),
        joined([part.activations for part in parts], 0),
        joined([part.gradients for part in parts], 1),
    )
