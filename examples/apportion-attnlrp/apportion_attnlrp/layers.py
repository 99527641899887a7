"""The rule of each module of a model, found by what the module is. A model with any other module is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import apportion as ap
from apportion_attnlrp.balance import Balance
from apportion_attnlrp.rules import identity_rule, uniform_rule

__all__ = ["edits_of"]

OutputEdit = Callable[[nn.Module, Tensor | None, Tensor], Tensor]
InputEdit = Callable[[nn.Module, Tensor], Tensor]

TOKENS = ("embed_tokens", "wte")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj")
NORMS_OF_HEADS = {"q_norm": "query", "q_layernorm": "query", "k_norm": "key", "k_layernorm": "key"}
GATED = ({"gate_proj", "up_proj", "down_proj"}, {"gate_up_proj", "down_proj"})
PLAIN = ({"up_proj", "down_proj"}, {"fc1", "fc2"}, {"c_fc", "c_proj"}, {"dense_h_to_4h", "dense_4h_to_h"})
ROUTERS = ("gate", "router", "shared_expert_gate")
ACTIVATIONS = frozenset({
    "FastGELUActivation", "GELU", "GELUActivation", "GELUTanh", "LeakyReLU", "LinearActivation", "Mish",
    "MishActivation", "NewGELUActivation", "QuickGELUActivation", "ReLU", "ReLU6", "ReLUSquaredActivation", "SiLU",
    "SiLUActivation", "Tanh",
})  # fmt: skip
"""Classes of element-wise functions that are 0 at 0."""

HARMLESS = (nn.Dropout, nn.Identity)


def edits_of(modules: Mapping[str, nn.Module], balance: Balance, *, constant_weights: bool = False) -> ap.Edits:
    """Edits that change a model's gradients to those of AttnLRP.

    Args:
        modules: all modules of the model, by name.
        balance: counts relevance on its way.
        constant_weights: attention weights are constants, so that all relevance of a head goes to its values.

    Raises:
        CapabilityError: the model has a module for which no rule is known.
    """
    plan = _Plan(modules, balance, constant_weights)
    for name, module in modules.items():
        plan.add(name, module)
    # Last, so that queries, keys and values are shared out after their own projections and norms were dealt with.
    for name, module in modules.items():
        if _is_attention(module):
            plan.add_attention(name, module)
    return plan.edits()


class _Plan:
    """Edits, as they are found; several of one module are applied in order."""

    def __init__(self, modules: Mapping[str, nn.Module], balance: Balance, constant_weights: bool) -> None:
        self._modules = modules
        self._balance = balance
        self._constant_weights = constant_weights
        self._outputs: dict[str, list[OutputEdit]] = {}
        self._inputs: dict[str, list[InputEdit]] = {}
        self._last_norm: str | None = None
        lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
        self._layers = [name for name in lists if not any(part.isdigit() for part in name.split("."))]
        if len(self._layers) != 1:
            raise _refused(f"it has {len(self._layers)} lists of layers, where one is expected")

    def add(self, name: str, module: nn.Module) -> None:
        """Find the rule of a module."""
        kind = type(module).__name__
        if isinstance(module, nn.Embedding):
            self._embedding(name)
        elif isinstance(module, nn.Linear | Conv1D):
            self._linear(name, module)
        elif _is_norm(module):
            self._norm(name, module)
        elif kind in ACTIVATIONS:
            self._activation(name)
        elif kind.endswith("Router"):
            self._on_input(name, lambda _, x: x.detach())
        elif kind.endswith("Experts"):
            self._experts(name, module)
        elif not (isinstance(module, HARMLESS) or kind.endswith("RotaryEmbedding") or _only_holds_others(module)):
            raise _refused(f"there is no rule for its module {name!r}, a {kind}")

    def edits(self) -> ap.Edits:
        """Everything that was found."""
        (layers,) = self._layers
        count = len(self._modules[layers])  # type: ignore[arg-type]
        end = self._last_norm or f"{layers}.{count - 1}"
        self._on_output(end, lambda _, x, y: self._balance.watch("output", y))
        self._on_input(f"{layers}.0", lambda _, x: self._balance.watch("layers", x))
        if not any(name.split(".")[-1] in TOKENS for name in self._outputs):
            raise _refused(f"none of its modules is called {' or '.join(TOKENS)}")
        outputs = {name: _outputs_in_order(found) for name, found in self._outputs.items()}
        return ap.Edits(outputs, {name: _inputs_in_order(found) for name, found in self._inputs.items()})

    def _embedding(self, name: str) -> None:
        if name.split(".")[-1] in TOKENS:
            self._on_output(name, lambda _, x, y: self._balance.begin(y))
        elif self._is_in_layer(name):
            raise _refused(f"its layers read embeddings of their own, {name!r}")
        else:
            self._balance.learned_positions = True

    def _linear(self, name: str, module: nn.Module) -> None:
        if name.split(".")[-1] in ROUTERS:
            self._on_input(name, lambda _, x: x.detach())
        elif self._is_in_layer(name):
            self._bias(name, module)

    def _norm(self, name: str, module: nn.Module) -> None:
        def identity(module: nn.Module, x: Tensor | None, y: Tensor) -> Tensor:
            assert x is not None
            if isinstance(module, nn.LayerNorm):
                x = x - x.mean(-1, keepdim=True)
            return identity_rule(x, y, getattr(module, "bias", None))

        self._on_output(name, identity)
        self._bias(name, module)
        if not self._is_in_layer(name):
            if self._last_norm is not None:
                raise _refused(f"it normalises twice outside of its layers, in {self._last_norm!r} and {name!r}")
            self._last_norm = name

    def _activation(self, name: str) -> None:
        parent = name.rpartition(".")[0]
        self._on_output(name, _activated)
        if type(self._modules[parent]).__name__.endswith("Experts"):
            return
        others = {
            child
            for child, one in self._children(parent).items()
            if type(one).__name__ not in ACTIVATIONS and not _is_norm(one) and not _is_attention(one)
        }
        if others in GATED:
            self._on_input(f"{parent}.down_proj", lambda _, x: uniform_rule(x))
        elif others not in PLAIN:
            raise _refused(f"{parent!r} has an activation among unknown modules, {', '.join(sorted(others)) or 'none'}")

    def _experts(self, name: str, module: nn.Module) -> None:
        """All experts in one module. From the product of gate and value to its output, everything is linear."""
        weights = {weight for weight, _ in module.named_parameters(recurse=False)}
        acts = [child for child in module.children() if type(child).__name__ in ACTIVATIONS]
        if weights != {"gate_up_proj", "down_proj"} or not acts:
            raise _refused(f"its experts {name!r} have unknown weights, {', '.join(sorted(weights)) or 'none'}")
        self._on_output(name, lambda _, x, y: uniform_rule(y))

    def add_attention(self, name: str, module: nn.Module) -> None:
        """Find the rules of the two matrix products of attention."""
        config = getattr(module, "config", None)
        for capped in ("attn_logit_softcapping", "final_logit_softcapping"):
            if getattr(config, capped, None) is not None:
                raise _refused(f"it caps logits ({capped}={getattr(config, capped)})")
        children = self._children(name)
        known = {*PROJECTIONS, *OUTPUTS, *NORMS_OF_HEADS}
        fused = type(module).__name__ == "GPT2Attention" and "c_attn" in children
        unknown = sorted(children.keys() - known - ({"c_attn"} if fused else set()))
        out = next((child for child in OUTPUTS if child in children), None)
        if unknown or out is None or not (fused or children.keys() >= set(PROJECTIONS)):
            raise _refused(f"its attention {name!r} consists of unknown modules, {', '.join(sorted(children))}")
        if any(True for _ in module.parameters(recurse=False)):
            raise _refused(f"its attention {name!r} has weights of its own")
        self._heads(name, out, children, fused=fused)

    def _heads(self, name: str, out: str, children: Mapping[str, nn.Module], *, fused: bool) -> None:
        """Give half of a head's relevance to its values, and half to its weights: to queries and keys equally."""

        def shared(part: str) -> OutputEdit:
            factor = 0.5 if part == "value" else 0.25
            if self._constant_weights:
                return lambda _, x, y: y if part == "value" else y.detach()
            return lambda _, x, y: self._balance.watch(f"{part} of {name}", y, factor)

        if not self._constant_weights:
            self._on_input(f"{name}.{out}", lambda _, x: self._balance.watch(f"heads of {name}", x))
        if fused:
            parts = [shared(part) for part in ("query", "key", "value")]

            def split(module: nn.Module, x: Tensor | None, y: Tensor) -> Tensor:
                pieces = y.chunk(3, dim=-1)
                return torch.cat([edit(module, x, piece) for edit, piece in zip(parts, pieces, strict=True)], dim=-1)

            self._on_output(f"{name}.c_attn", split)
            return
        # After their norms, if they have any, so that nothing that absorbs relevance lies between them.
        places = dict(zip(("query", "key", "value"), PROJECTIONS, strict=True))
        places |= {part: child for child, part in NORMS_OF_HEADS.items() if child in children}
        for part, child in places.items():
            self._on_output(f"{name}.{child}", shared(part))

    def _bias(self, name: str, module: nn.Module) -> None:
        if getattr(module, "bias", None) is not None:
            self._on_output(name, lambda module, x, y: self._balance.watch_bias(y, module.bias))

    def _on_output(self, name: str, edit: OutputEdit) -> None:
        self._outputs.setdefault(name, []).append(edit)

    def _on_input(self, name: str, edit: InputEdit) -> None:
        self._inputs.setdefault(name, []).append(edit)

    def _is_in_layer(self, name: str) -> bool:
        return name.startswith(f"{self._layers[0]}.")

    def _children(self, name: str) -> dict[str, nn.Module]:
        """Modules directly in a module, without those that change nothing."""
        return {child: one for child, one in self._modules[name].named_children() if not isinstance(one, HARMLESS)}


def _activated(module: nn.Module, x: Tensor | None, y: Tensor) -> Tensor:
    assert x is not None
    return identity_rule(x, y)


def _outputs_in_order(edits: Sequence[OutputEdit]) -> OutputEdit:
    def edit(module: nn.Module, x: Tensor | None, y: Tensor) -> Tensor:
        for one in edits:
            y = one(module, x, y)
        return y

    return edit


def _inputs_in_order(edits: Sequence[InputEdit]) -> InputEdit:
    def edit(module: nn.Module, x: Tensor) -> Tensor:
        for one in edits:
            x = one(module, x)
        return x

    return edit


def _is_attention(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Attention")


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm | nn.RMSNorm) or type(module).__name__.endswith("RMSNorm")


def _only_holds_others(module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return not own and any(True for _ in module.children())


def _refused(why: str) -> ap.CapabilityError:
    return ap.CapabilityError(
        f"The method 'attnlrp' has no rules for this model: {why}. Use another method, such as 'input_x_gradient' or "
        "'integrated_gradients'."
    )
