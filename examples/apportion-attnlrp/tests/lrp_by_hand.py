"""Layer-wise relevance propagation through a Llama, written out rule by rule: no gradients, one layer at a time.

Each rule takes the relevance of what a layer returns, and returns the relevance of what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

HALF = 0.5


@dataclass
class Propagated:
    """Relevance of each token's embedding, ``Float[L]``, and what the softmax has absorbed."""

    tokens: Tensor
    absorbed: float = 0.0


@dataclass
class Trace:
    """What was read and returned on the way forward, in order."""

    steps: list[dict[str, Tensor]] = field(default_factory=list)


@torch.no_grad()
def relevance_of_logit(model: PreTrainedModel, ids: list[int], token: int) -> Propagated:
    """Relevance of all tokens for the logit of one token after them."""
    base, config = model.model, model.config
    positions = torch.arange(len(ids))[None]
    states = base.embed_tokens(torch.tensor(ids))
    rotation = tuple(part[0] for part in base.rotary_emb(states[None], positions))
    seen = []
    for layer in base.layers:
        attended = attention(layer.self_attn, normed(layer.input_layernorm, states), rotation, config)
        middle = states + attended["returned"]
        gated = gate(layer.mlp, normed(layer.post_attention_layernorm, middle))
        seen.append((layer, states, attended, middle, gated))
        states = middle + gated["returned"]
    head = model.lm_head.weight[token]
    found = torch.zeros_like(states)
    found[-1] = normed(base.norm, states)[-1] * head  # the logit is a sum of these
    absorbed = 0.0  # from here on: relevance of the residual stream, which norms pass on unchanged
    for layer, before, attended, middle, gated in reversed(seen):
        kept, branch = summed(middle, gated["returned"], found)
        found = kept + gate_rule(layer.mlp, gated, branch)
        kept, branch = summed(before, attended["returned"], found)
        through, lost = attention_rule(layer.self_attn, attended, branch, rotation)
        found, absorbed = kept + through, absorbed + lost
    return Propagated(found.sum(-1), absorbed)


def normed(norm: torch.nn.Module, x: Tensor) -> Tensor:
    """RMSNorm in float64 throughout."""
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()


def attention(module: torch.nn.Module, x: Tensor, rotation: tuple[Tensor, Tensor], config: object) -> dict[str, Tensor]:
    """Causal attention with groups of queries; everything that its rule needs."""
    heads = lambda y: y.unflatten(-1, (-1, module.head_dim)).transpose(0, 1)  # noqa: E731
    plain = {name: getattr(module, f"{name}_proj").weight @ x.T for name in "qkv"}
    query, key, value = (heads(plain[name].T) for name in "qkv")
    turned = {"query": turn(query, rotation), "key": turn(key, rotation)}
    groups = len(query) // len(key)
    many = {"key": turned["key"].repeat_interleave(groups, 0), "value": value.repeat_interleave(groups, 0)}
    scores = module.scaling * turned["query"] @ many["key"].transpose(1, 2)
    mask = torch.ones(scores.shape[1:], dtype=torch.bool).tril()
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    mixed = weights @ many["value"]
    joined = mixed.transpose(0, 1).flatten(1)
    return {
        "read": x, "query": query, "key": key, "value": value, "turned query": turned["query"],
        "turned key": turned["key"], "many keys": many["key"], "many values": many["value"], "scores": scores,
        "weights": weights, "mixed": mixed, "joined": joined, "returned": joined @ module.o_proj.weight.T,
    }  # fmt: skip


def attention_rule(
    module: torch.nn.Module, seen: dict[str, Tensor], found: Tensor, rotation: tuple[Tensor, Tensor]
) -> tuple[Tensor, float]:
    """Back through attention: the relevance of what it reads, and what the softmax absorbs."""
    joined = linear_rule(module.o_proj.weight, seen["joined"], found)
    mixed = joined.unflatten(-1, (-1, module.head_dim)).transpose(0, 1)
    # Each product w·v is a part of the mixture; its relevance is halved between the two.
    per_unit = mixed / seen["mixed"]
    parts = seen["weights"][..., None] * seen["many values"][:, None] * per_unit[:, :, None]  # [H, L, M, D]
    weights, values = HALF * parts.sum(-1), HALF * parts.sum(1)
    # Taylor: x_i (R_i − s_i Σ R), where the constant of the expansion keeps the rest.
    scores = seen["scores"] * (weights - seen["weights"] * weights.sum(-1, keepdim=True))
    # Each product q·k is a part of a score.
    share = module.scaling * scores / seen["scores"]
    parts = seen["turned query"][:, :, None] * seen["many keys"][:, None] * share[..., None]
    query, keys = HALF * parts.sum(2), HALF * parts.sum(1)
    groups = len(keys) // len(seen["key"])
    key, value = (part.unflatten(0, (-1, groups)).sum(1) for part in (keys, values))
    flat = lambda y: y.transpose(0, 1).flatten(1)  # noqa: E731
    total = torch.zeros_like(seen["read"])
    for name, part in (
        ("q", turn_rule(seen["query"], seen["turned query"], query, rotation)),
        ("k", turn_rule(seen["key"], seen["turned key"], key, rotation)),
        ("v", value),
    ):
        total += linear_rule(getattr(module, f"{name}_proj").weight, seen["read"], flat(part))
    return total, float(weights.sum() - scores.sum())


def gate(module: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The gated layer."""
    opened, up = x @ module.gate_proj.weight.T, x @ module.up_proj.weight.T
    product = functional.silu(opened) * up
    return {"read": x, "product": product, "returned": product @ module.down_proj.weight.T}


def gate_rule(module: torch.nn.Module, seen: dict[str, Tensor], found: Tensor) -> Tensor:
    """Back through the gated layer: half to the gate, whose activation passes it on, and half to the value."""
    half = HALF * linear_rule(module.down_proj.weight, seen["product"], found)
    return sum(linear_rule(part.weight, seen["read"], half) for part in (module.gate_proj, module.up_proj))


def linear_rule(weight: Tensor, x: Tensor, found: Tensor) -> Tensor:
    """Share the relevance of each output out in proportion to what each input contributes to it."""
    parts = weight * x[:, None]  # [L, out, in]
    return (parts / parts.sum(-1, keepdim=True) * found[..., None]).sum(1)


def summed(one: Tensor, other: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Share the relevance of a sum out in proportion to its two parts."""
    return found * one / (one + other), found * other / (one + other)


def turn(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding."""
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


def turn_rule(x: Tensor, turned: Tensor, found: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Back through a rotation: each output is a sum of two contributions."""
    cosine, sine = rotation
    share = found / turned
    first, second = (share * sine).chunk(2, -1)
    return x * (share * cosine + torch.cat([second, -first], -1))
