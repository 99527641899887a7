"""The Rescale rule of DeepLIFT: at activation functions, slopes between input and baseline instead of gradients."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from apportion.errors import CapabilityError, listing, shown, unknown_name
from apportion.protocols.inside import Edits, Inside

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RULES", "Rescaling", "checked_activations"]

LEAST = 1e-10
"""Changes of an input below this have the gradient as slope, as in Captum."""

CAPTUM = ("ReLU", "ELU", "LeakyReLU", "Sigmoid", "Tanh", "Softplus")
"""Classes of ``torch.nn`` whose slopes Captum rescales; it leaves all others to their gradients, SiLU and GELU too."""

ELEMENTWISE = (
    *CAPTUM, "CELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LogSigmoid", "Mish", "PReLU",
    "ReLU6", "SELU", "SiLU", "Softshrink", "Softsign", "Tanhshrink", "Threshold",
)  # fmt: skip
"""Classes of ``torch.nn`` that compute each number from one number."""

RULES = ("rescale", "captum")
"""Which activation functions are rescaled: all, or those that Captum rescales."""


def checked_activations(rule: object) -> str:
    """Check the option ``rule``.

    Raises:
        UnknownNameError: there is no such rule.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise unknown_name("rule", rule if isinstance(rule, str) else shown(rule), RULES)
    return rule


class Rescaling:
    """Gives activation functions the slopes between two prompts that are read together: the prompt, and its baseline.

    Args:
        rule: which activation functions are rescaled.
        inside: the model.

    Raises:
        CapabilityError: an activation function overwrites its input, or Captum has a rule of its own for it.
    """

    def __init__(self, rule: str, inside: Inside) -> None:
        modules = inside.modules()
        self._names = [name for name, module in modules.items() if _is_rescaled(rule, module)]
        in_place = [name for name in self._names if getattr(modules[name], "inplace", False)]
        if in_place:
            raise CapabilityError(
                f"DeepLIFT compares what activation functions read and return, and these overwrite what they read: "
                f"{listing(in_place)}. Set their `inplace` to False."
            )
        softmax = [name for name, module in modules.items() if type(module) is torch.nn.Softmax]
        if rule == "captum" and softmax:
            raise CapabilityError(
                f"Captum has a rule of its own for these modules, which is not reproduced: {listing(softmax)}. Use "
                "rule='rescale', which takes their gradients."
            )
        lengths = [len(inside.prompt_ids) + len(ids) - 1 for ids in inside.targets]
        lengths += [] if inside.joint else [len(inside.prompt_ids), *map(len, inside.targets)]
        self._rows = {2 * length for length in lengths}
        self._unpaired: set[str] = set()

    @property
    def edits(self) -> Edits:
        """The edits."""
        return Edits(outputs={name: partial(self._rescale, name) for name in self._names})

    def notes(self) -> tuple[str, ...]:
        """Note on activation functions that kept their gradients."""
        if not self._names:
            return (
                "this model has no activation function that is rescaled, so values are gradients times differences "
                "from the baseline",
            )
        if self._unpaired:
            return (
                f"{len(self._unpaired)} of {len(self._names)} activation functions keep their gradients, because they "
                f"do not read the same tokens for the baseline: {listing(sorted(self._unpaired), limit=3)}",
            )
        return ()

    def _rescale(self, name: str, _: nn.Module, read: Tensor | None, own: Tensor) -> Tensor:
        """The same output, with the slopes between both prompts as its gradient."""
        if read is None or read.shape != own.shape or not self._paired(name, own):
            self._unpaired.add(name)
            return own
        with torch.no_grad():
            wide = torch.promote_types(own.dtype, torch.float32)
            (prompt, start), (after, after_start) = read.to(wide).chunk(2), own.to(wide).chunk(2)
            change = prompt - start
            same = change.abs() < LEAST
            slope = torch.where(same, 0.0, (after - after_start) / torch.where(same, 1.0, change)).to(own.dtype)
            slope, same = torch.cat([slope, slope]), torch.cat([same, same])
        return torch.where(same, own, own.detach() + slope * (read - read.detach()))

    def _paired(self, name: str, own: Tensor) -> bool:
        """True if the first half belongs to the prompt, and the second to the baseline, position by position.

        Experts read the tokens that were sent to them, which may be other ones for the baseline.
        """
        if own.ndim > 2:
            return len(own) == 2
        return len(own) in self._rows and not any(word.startswith("expert") for word in name.split("."))


def _is_rescaled(rule: str, module: nn.Module) -> bool:
    kind = type(module)
    if rule == "captum":
        return kind in {getattr(torch.nn, name) for name in CAPTUM}
    if kind.__module__.startswith("torch.nn."):
        return kind.__name__ in ELEMENTWISE
    # transformers has activation functions of its own, and so have some of its models.
    named = kind.__module__ == "transformers.activations" or re.search(r"(?i)(gelu|silu|relu|swish)$", kind.__name__)
    return bool(named) and not any(True for _ in module.children())
