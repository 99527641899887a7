"""The state of a model that a white-box method must leave as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["Watched", "unchanged"]

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)  # fmt: skip
PROBED = ((1, 2, 3, 4, 5),)


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Fail if the body changes anything of a model, or raises and has changed something: the model is examined anyway.

    Its outputs, hooks, attributes, training mode, flags and gradients of weights are compared.
    """
    before, logits = _state(model), _logits(model)
    try:
        yield
    finally:
        after = _state(model)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        assert not changed, (
            f"The method changed the model and left it so: {changed[0]} was {before.get(changed[0])}, and is "
            f"{after.get(changed[0])}. Give functions to `Edits` instead of changing modules."
        )
        assert torch.equal(_logits(model), logits), "The model's outputs are not what they were before the run."


class Watched:
    """Sees the forward passes of a model's last layer, and can make one fail.

    Its hook is there before a backend examines the model, which would examine it again after any change.

    Args:
        model: a model whose layers are in ``model.model.layers``.

    Attributes:
        rows: number of rows of each forward pass.
        error: error to raise in a forward pass.
        after: number of forward passes before it.
        failed: it was raised.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.rows: list[int] = []
        self.error: type[BaseException] | None = None
        self.after = 0
        self.failed = False
        model.model.layers[-1].register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if self.error is not None and len(self.rows) >= self.after:
            self.failed = True
            raise self.error("the contract made the model fail here")
        self.rows.append(len(args[0]))


def _state(model: PreTrainedModel) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, module in model.named_modules():
        label = f"the module {name!r}" if name else "the model"
        found[f"the mode (training) of {label}"] = module.training
        found[f"the attributes of {label}"] = tuple(sorted(vars(module)))
        for kind in HOOKS:
            found[f"{kind} of {label}"] = tuple(getattr(module, kind))
    for name, weight in model.named_parameters():
        found[f"requires_grad of {name!r}"] = weight.requires_grad
        found[f"the gradient of {name!r}"] = None if weight.grad is None else "set"
    found["the gradient mode of torch"] = torch.is_grad_enabled()
    found["the attention implementation"] = model.config._attn_implementation
    return found


def _logits(model: PreTrainedModel) -> torch.Tensor:
    training = model.training
    with torch.no_grad():
        model.train(False)
        found: torch.Tensor = model(torch.tensor(PROBED), use_cache=False).logits
        model.train(training)
    return found
