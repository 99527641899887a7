"""Access to the model's internals, with evaluations counted like any others of the game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from apportion.errors import CapabilityError, InputError, PluginError, ScoreError, shown
from apportion.game.token_features import token_owners
from apportion.game.token_view import Charge, text_only
from apportion.options import unit_of, whole_number
from apportion.protocols.inside import NO_EDITS, Edits, Gradients, ModuleGradients, Side, Trace
from apportion.scoring.white_box import ModulesToRead, Pass

if TYPE_CHECKING:
    from apportion.protocols.inside import InsideSession
    from apportion.protocols.request import Request
    from apportion.scoring.readout import Readout

__all__ = ["AskInside", "GameInside", "is_stationary", "require_gradient"]

FLAT = 1e-4
"""Slope of a target function, as a share of its slope elsewhere, below which only rounding errors are left."""


@runtime_checkable
class AskInside(Protocol):
    """Takes the questions of a white-box method to the session."""

    def embeddings(self, ids: tuple[int, ...], *, target: bool) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens."""
        ...

    def rows_at_once(self, prompt: int, extra: int = 0) -> int:
        """Number of prompts of this length that fit the memory budget with their backward passes; 0 if none does.

        Args:
            prompt: tokens of a prompt.
            extra: bytes that each prompt takes on top.
        """
        ...

    def values(self, one: Pass) -> Float[Tensor, "B K"]:
        """Values of prompts, differentiable."""
        ...

    def gradients(self, one: Pass, *, tokens: bool) -> Gradients:
        """Values, and gradients with respect to embeddings."""
        ...

    def module_gradients(self, one: Pass, modules: ModulesToRead, *, tokens: bool, slopes: bool) -> ModuleGradients:
        """Values, and gradients with respect to what modules return or read."""
        ...

    def trace(
        self,
        prompt: tuple[int, ...],
        *,
        hidden: bool,
        attentions: bool,
        modules: tuple[str, ...],
        edits: Edits,
        last: int | None,
    ) -> Trace:
        """Internals of one forward pass over a prompt and the target."""
        ...


class GameInside:
    """The model's internals for the full prompt of a request; see ``Inside``.

    Args:
        request: the run's request.
        session: session whose tokenizer encoded the prompt.
        ask: takes questions to the session.
        charge: counts evaluations before they are made.
        stationary: all gradients at the full prompt are 0.

    Raises:
        CapabilityError: tokens cannot be matched with features, or a feature has none.
    """

    def __init__(
        self, request: Request, session: InsideSession, ask: AskInside, charge: Charge, *, stationary: bool = False
    ) -> None:
        tokenizer, adapter = session.tokenizer, request.adapter
        self.prompt_ids = text_only(request.renderer.full())
        self.feature_of = token_owners(request, tokenizer, self.prompt_ids)
        special = set(tokenizer.all_special_ids)
        self.special = tuple(token in special for token in self.prompt_ids)
        self.joint = session.layout.joint
        contrast = request.target.contrast
        self.targets = (request.target.ids,) if contrast is None else (request.target.ids, contrast.ids)
        nobody = (None,) * (len(request.target.ids) - 1)
        self.generated_feature_of: tuple[int | None, ...] = tuple(getattr(adapter, "generated", nobody))
        # An encoder reads all tokens together, so none of them can be read before the others.
        before = len(list(takewhile(lambda feature: feature is None, self.feature_of))) if self.joint else 0
        self.fixed = before if before < len(self.prompt_ids) else 0
        self.unit = unit_of(request.target_fn, request.target_fn_name)
        self.tokenizer = tokenizer
        self.vocabulary = min(len(tokenizer), session.info.vocabulary or len(tokenizer))
        self.stationary = stationary
        self._session = session
        self._ask = ask
        self._charge = charge

    @property
    def batch_rows(self) -> int:
        """Number of prompts that fit the memory budget in one forward pass with backward passes; at least 1."""
        return self.rows_beside(0)

    def rows_beside(self, extra: int) -> int:
        """Number of such prompts, if each takes ``extra`` bytes more."""
        tokens = len(self.prompt_ids) + max(map(len, self.targets))
        busy = self._session.layout.batch_tokens // tokens
        return max(1, min(self._ask.rows_at_once(len(self.prompt_ids), extra), busy))

    def modules(self) -> Mapping[str, nn.Module]:
        """All modules of the model, by name."""
        return self._session.modules()

    def embeddings(self, ids: Sequence[int] | None = None) -> Float[Tensor, "P D"]:
        """Input embeddings of the prompt, or of other tokens."""
        return self._ask.embeddings(self.prompt_ids if ids is None else tuple(ids), target=False)

    def following(self) -> Float[Tensor, "N D"]:
        """Embeddings of the target tokens that are read."""
        return self._ask.embeddings(self.targets[0][:-1], target=True)

    def values(
        self,
        points: Float[Tensor, "B P D"],
        *,
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
    ) -> Float[Tensor, "B K"]:
        """Values of prompts given by their embeddings, differentiable."""
        return _finite(self._ask.values(self._pass("values", points, following, edits)))

    def gradients(
        self,
        points: Float[Tensor, "B P D"],
        *,
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
        tokens: bool = True,
        together: bool = False,
    ) -> Gradients:
        """Values, and gradients with respect to input embeddings."""
        one = self._pass("gradients", points, following, edits, together=together)
        found = self._ask.gradients(one, tokens=tokens)
        _finite(found.values)
        _finite_slopes([found.prompt] if found.generated is None else [found.prompt, found.generated], together)
        return found

    def module_gradients(
        self,
        points: Float[Tensor, "B P D"],
        names: Sequence[str],
        *,
        side: Side = "output",
        given: Sequence[Mapping[str, Float[Tensor, "B ..."]]] = (),
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
        tokens: bool = True,
        together: bool = False,
        slopes: bool = True,
    ) -> ModuleGradients:
        """Values, and gradients with respect to what modules return or read."""
        chosen = _names("names", names)
        if side not in ("output", "input"):
            raise InputError(f"side={shown(side)} must be 'output' or 'input'.")
        if given and (len(given) != len(self.targets) or any(set(one) != set(chosen) for one in given)):
            raise InputError(
                f"given= takes one mapping of all {len(chosen)} names to activations for each of the "
                f"{len(self.targets)} targets."
            )
        modules = ModulesToRead(chosen, side, tuple(given))
        one = self._pass("module_gradients", points, following, edits, whole=True, together=together)
        found = self._ask.module_gradients(one, modules, tokens=tokens, slopes=slopes)
        _finite(found.values)
        _finite_slopes([slope for part in found.gradients for slope in part.values()], together)
        return found

    def trace(
        self,
        *,
        hidden: bool = False,
        attentions: bool = False,
        modules: Sequence[str] = (),
        edits: Edits = NO_EDITS,
        last: int | None = None,
    ) -> Trace:
        """Internals of one forward pass over the prompt and the target."""
        names = _names("modules", modules)
        rows = None if last is None else whole_number("last", last, least=1)
        self._charge(1)
        return self._ask.trace(
            self.prompt_ids, hidden=hidden, attentions=attentions, modules=names, edits=edits, last=rows
        )

    def _pass(
        self,
        name: str,
        points: object,
        following: object,
        edits: Edits,
        *,
        whole: bool = False,
        together: bool = False,
    ) -> Pass:
        """Check embeddings, and count the evaluations that they take."""
        tokens = len(self.prompt_ids)
        lengths = {tokens} if whole or edits else {tokens, tokens - self.fixed}
        given = _embeddings(f"{name}() takes embeddings", points, lengths)
        if not isinstance(edits, Edits):
            raise InputError(f"edits={shown(edits)} must be Edits(outputs={{…}}, inputs={{…}}).")
        target = None
        if following is not None:
            target = _embeddings(f"following= of {name}() takes embeddings", following, {len(self.targets[0]) - 1})
            if len(target) != len(given):
                raise InputError(f"There are {len(given)} prompts, but following= has {len(target)} rows.")
        self._charge(len(given))
        return Pass(given, self.prompt_ids[: tokens - given.shape[1]], target, edits, together, self.prompt_ids)


def _embeddings(what: str, found: object, lengths: set[int]) -> Float[Tensor, "B P D"]:
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[1] not in lengths or not len(found):
        wanted = " or ".join(f"[B, {length}, D]" for length in sorted(lengths, reverse=True))
        raise InputError(f"{what} of shape {wanted}, one per token, not {shape}.")
    if not found.is_floating_point():
        raise InputError(f"{what} of floating-point numbers, not of {found.dtype}.")
    return found


def _names(argument: str, names: object) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else names
    if not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{argument}={names!r:.80} must be names of modules.")
    return tuple(found)


def _finite(values: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    if not bool(torch.isfinite(values).all()):
        raise ScoreError(
            f"The value of a prompt given by its embeddings is not finite: {values[:, 0].tolist()}. Check the "
            "embeddings, and the model's weights and dtype."
        )
    return values


def _finite_slopes(slopes: Sequence[Float[Tensor, "O B ..."]], together: bool) -> None:
    """Refuse gradients that are not finite; of prompts read together, the first one's alone are used.

    Raises:
        ScoreError: a gradient is not finite.
    """
    if not all(bool(torch.isfinite(one[:, :1] if together else one).all()) for one in slopes):
        raise ScoreError(
            "A gradient is not finite. Some models have none where all embeddings are zero, and half precision "
            "overflows: use another baseline, a rule that leaves out the ends of the path, or dtype='float32'."
        )


def require_gradient(readout: Readout, name: str) -> None:
    """Reject a target function whose values have no gradient with respect to the logits, checked on random logits.

    Args:
        readout: readout with the target function.
        name: name of the target function.

    Raises:
        CapabilityError: the target function has no gradient.
        PluginError: it claims to be additive, and is not.
    """
    values, slopes = _at_random_logits(readout, beside=True)
    found = any(slope is not None for slope in slopes)
    whole, summed = float(values[0, 0].detach()), float(values[0, 1:].detach().sum())
    if readout.additive and abs(whole - summed) > 1e-6 + 1e-5 * abs(summed):
        raise PluginError(
            f"The target function {name!r} is called additive, but the value of the whole target is {whole:.6g} where "
            f"those of its tokens add up to {summed:.6g}. Set additive = False."
        )
    if not found:
        raise CapabilityError(
            f"The target function {name!r} has no gradient: its values are counts, or are detached from the logits "
            "(detach, argmax, comparisons). Use a differentiable one such as 'log_prob' or 'prob', or a perturbation "
            "method."
        )


def is_stationary(readout: Readout) -> bool:
    """True if a target function has no slope where a prompt is its own reference, as divergences have none.

    Args:
        readout: readout with the target function.
    """
    if not readout.has_reference:
        return False
    here, elsewhere = (
        max(float(slope.abs().max()) for slope in _at_random_logits(readout, beside=beside)[1] if slope is not None)
        for beside in (False, True)
    )
    return here <= FLAT * elsewhere


def _at_random_logits(readout: Readout, *, beside: bool) -> tuple[Float[Tensor, "1 K"], Sequence[Tensor | None]]:
    """Values and slopes of a target function at random logits; the reference has others, or the same."""
    with torch.inference_mode(False), torch.enable_grad():
        draw = torch.Generator().manual_seed(0)
        wide = max(readout.vocabulary, 1 + max(map(max, readout.targets)))
        logits = [torch.randn(1, len(ids), wide, generator=draw, requires_grad=True) for ids in readout.targets]
        scores = [readout.scores_of(part, ids) for part, ids in zip(logits, readout.targets, strict=True)]
        other = torch.randn(logits[0].shape, generator=draw) if beside else logits[0].detach()
        reference = readout.scores_of(other, readout.targets[0]) if readout.has_reference else None
        values = readout.applied(*scores, reference=reference)
        slopes = torch.autograd.grad(values.sum(), logits, allow_unused=True) if values.requires_grad else ()
    return values, slopes
