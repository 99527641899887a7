"""Interpretable inputs: features of a text, and the model input of every combination of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from apportion.captum.refusals import WrongTypeError, require

__all__ = ["InterpretableInput", "TextTemplateInput", "TextTokenInput", "drawn", "draws_baselines"]


class InterpretableInput(ABC):
    """Features of a model's input, as a tensor that methods perturb.

    Subclass it for inputs of your own: ``to_model_input`` may return a text, token ids ``Int[1, L]``, or a mapping of
    the model's arguments that has ``"input_ids"``.

    Attributes:
        n_itp_features: number of features.
        values: a label for each score of the result.
    """

    n_itp_features: int
    values: list[str]

    @abstractmethod
    def to_tensor(self) -> Tensor:
        """Return the tensor ``[1, F]`` of the features as they are."""

    @abstractmethod
    def to_model_input(self, perturbed_tensor: Tensor | None = None) -> Any:
        """Return the model input of a perturbed tensor; of the features as they are, if it is ``None``."""

    def format_attr(self, itp_attr: Tensor) -> Tensor:
        """Return the scores of ``values`` from those of the features; by default, they are the same."""
        return itp_attr


class TextTemplateInput(InterpretableInput):
    """A text whose features are the values of a template's slots.

    Args:
        template: a format string, or a function of the values that returns the text.
        values: the values, as a list for ``{}``, or a dict for ``{name}``.
        baselines: what absent values are replaced by, as a list or dict like ``values``; a function that returns one,
            such as ``ProductBaselines``; or ``None`` for empty strings. A function is called once for each trial
            (Captum calls it for each forward pass, so that its values do not add up).
        mask: a number for each value; values with the same number are one feature, and share its score.

    Raises:
        AssertionError: the arguments are not of these types, or not alike.
    """

    def __init__(
        self,
        template: str | Callable[..., str],
        values: list[str] | dict[str, str],
        baselines: list[str] | dict[str, str] | Callable[[], list[str] | dict[str, str]] | None = None,
        mask: list[int] | dict[str, int] | None = None,
    ) -> None:
        kind = type(values)
        require(isinstance(values, list | dict), f"the values must be either a list or a dict, received: {kind}")
        require(
            isinstance(template, str) or callable(template),
            f"the template must be either a string or a callable, received: {type(template)}",
        )
        self.dict_keys = list(values) if isinstance(values, dict) else []
        self.values = self._in_order("values", values)
        self.n_features = len(self.values)
        if baselines is None:
            self.baselines: Any = [""] * self.n_features
        else:
            self.baselines = baselines if callable(baselines) else self._in_order("baselines", baselines)
        self.mask = None if mask is None else self._in_order("mask", mask)
        if self.mask is not None:
            # As in Captum, features are numbered in the order of a set of the numbers in the mask.
            numbers = {number: index for index, number in enumerate(set(self.mask))}
            self.formatted_mask = [numbers[number] for number in self.mask]
        self.n_itp_features = self.n_features if self.mask is None else max(self.formatted_mask, default=-1) + 1
        self.template = template
        self.format_fn: Callable[..., str] = template.format if isinstance(template, str) else template

    def _in_order(self, name: str, given: Any) -> list[Any]:
        """The items of a list or dict in the order of the values.

        Raises:
            AssertionError: it is not of the same type as the values, or some are missing.
        """
        if not self.dict_keys:
            require(isinstance(given, list), f"if values is a list, the {name} must also be a list, not {type(given)}")
            require(
                not hasattr(self, "n_features") or len(given) == self.n_features,
                f"there are {getattr(self, 'n_features', 0)} values, but {len(given)} entries in the {name}",
            )
            return list(given)
        require(isinstance(given, dict), f"if values is a dict, the {name} must also be a dict, not {type(given)}")
        missing = [key for key in self.dict_keys if key not in given]
        require(not missing, f"no entry in the {name} for {', '.join(map(repr, missing))}")
        return [given[key] for key in self.dict_keys]

    def to_tensor(self) -> Tensor:
        """Return ones, ``Float[1, F]``."""
        return torch.ones(1, self.n_itp_features)

    def to_model_input(self, perturbed_tensor: Tensor | None = None) -> str:
        """Return the text in which the values of zeros are replaced by their baselines."""
        values = list(self.values)
        if perturbed_tensor is not None:
            baselines = self.drawn_baselines()
            present = [bool(one) for one in perturbed_tensor[0].tolist()]
            feature = range(self.n_features) if self.mask is None else self.formatted_mask
            values = [own if present[f] else other for own, other, f in zip(values, baselines, feature, strict=True)]
        if self.dict_keys:
            return self.format_fn(**dict(zip(self.dict_keys, values, strict=True)))
        return self.format_fn(*values)

    def drawn_baselines(self) -> list[str]:
        """Return the baselines in the order of the values; those of a function are drawn anew.

        Raises:
            AssertionError: a function returned something else than a list or dict like the values.
        """
        return self._in_order("baselines", self.baselines()) if callable(self.baselines) else self.baselines

    def format_attr(self, itp_attr: Tensor) -> Tensor:
        """Return a score for each value ``[..., V]``: that of its feature."""
        return itp_attr if self.mask is None else itp_attr[..., self.formatted_mask]


class TextTokenInput(InterpretableInput):
    """A text whose features are its tokens, special tokens included.

    Args:
        text: the text.
        tokenizer: encodes it; needs ``encode``, ``convert_ids_to_tokens`` and ``convert_tokens_to_ids``.
        baselines: the token, or its id, that replaces absent tokens.
        skip_tokens: tokens, or their ids, that are always present and get no score.
    """

    def __init__(
        self,
        text: str,
        tokenizer: Any,
        baselines: int | str = 0,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.inp_tensor: Tensor = tokenizer.encode(text, return_tensors="pt")
        self.itp_tensor, self.itp_mask = self.inp_tensor, None
        self.skip_tokens = skipped = token_ids(skip_tokens, tokenizer)
        if skipped:
            self.itp_mask = ~torch.isin(self.inp_tensor, torch.tensor(skipped))
            self.itp_tensor = self.inp_tensor[self.itp_mask][None]
        self.values = tokenizer.convert_ids_to_tokens(self.itp_tensor[0].tolist())
        self.n_itp_features = len(self.values)
        found = baselines if isinstance(baselines, int) else token_ids([baselines], tokenizer)[0]
        if not isinstance(found, int):
            raise WrongTypeError(f"the baseline {baselines!r:.40} is not a token of the tokenizer")
        require(found >= 0, f"the baseline {found} is not a token id")
        self.baselines: int = found

    def to_tensor(self) -> Tensor:
        """Return ones, ``Int[1, F]``."""
        return torch.ones_like(self.itp_tensor)

    def to_model_input(self, perturbed_tensor: Tensor | None = None) -> Tensor:
        """Return token ids ``Int[B, L]``, in which those that are not 1 are replaced by the baseline."""
        if perturbed_tensor is None:
            return self.inp_tensor
        present = perturbed_tensor == 1
        device, rows = present.device, len(present)
        scored = torch.where(present, self.itp_tensor.to(device), self.baselines)
        if self.itp_mask is None:
            return scored
        found = self.inp_tensor.to(device).repeat(rows, 1)
        found[self.itp_mask.to(device).expand(rows, -1)] = scored.flatten()
        return found


def token_ids(tokens: Sequence[int] | Sequence[str] | None, tokenizer: Any) -> list[int]:
    """Ids of tokens that are given as texts or ids."""
    if not tokens:
        return []
    if isinstance(tokens[0], str):
        return list(tokenizer.convert_tokens_to_ids(list(tokens)))
    return [int(one) for one in tokens]


def draws_baselines(inp: InterpretableInput) -> bool:
    """True for a template whose baselines are drawn by a function."""
    return isinstance(inp, TextTemplateInput) and callable(inp.baselines)


def drawn(inp: InterpretableInput) -> InterpretableInput:
    """The same input with one draw of its baselines, which all of its perturbations share."""
    if not isinstance(inp, TextTemplateInput) or not callable(inp.baselines):
        return inp
    found = copy(inp)
    found.baselines = inp.drawn_baselines()
    return found
