"""Checks of a session's access to the model's internals, for the contract of backends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, InputError
from apportion.protocols.backend import Capability
from apportion.protocols.inside import EmbeddedBatch, InsideSession

__all__ = ["check_gradient", "check_logits_of_embeddings", "check_trace", "hooks_of"]

Tokens = tuple[int, ...]


def check_logits_of_embeddings(
    session: InsideSession, prompt: Tokens, target: Tokens, expected: Float[Tensor, "T V"], allowed: float
) -> None:
    """Embeddings are detached, and give the logits of their tokens."""
    embedded = session.embeddings(prompt)
    assert not embedded.requires_grad, "embeddings() must be detached."
    point = torch.stack([embedded, 0.5 * embedded]).requires_grad_()
    with torch.enable_grad(), session.forward(EmbeddedBatch(point, target)) as logits:
        slopes = torch.autograd.grad(_objective(logits), point)
    assert torch.allclose(logits[0].detach().cpu().double(), expected, atol=allowed, rtol=1e-3), (
        "The logits of embeddings differ from those of their tokens."
    )
    assert slopes[0].shape == point.shape
    assert point.grad is None, "The gradient must not accumulate in `grad` of the embeddings."


def check_gradient(session: InsideSession, prompt: Tokens, target: Tokens) -> None:
    """The derivative along a random direction equals a finite difference; only for models in float64.

    Computed with the prompt alone, after a prefix, with other target embeddings, and layer by layer.
    """
    embedded, own = session.embeddings(prompt), session.embeddings(target[:-1], target=True)
    point, following = torch.stack([embedded, 0.5 * embedded]), torch.stack([own, 0.7 * own])
    slopes = _check_direction(session, EmbeddedBatch(point, target, following=following))
    again = _slopes(session, EmbeddedBatch(point, target, following=following), recompute=True)
    for one, other in zip(slopes, again, strict=True):
        assert torch.allclose(one, other, atol=1e-9), "With `recompute`, the gradient is another one."
    if session.layout.joint:
        after = EmbeddedBatch(point[:, 2:], target, prefix=prompt[:2])
        whole = EmbeddedBatch(torch.cat([point[:1, :2].expand(2, -1, -1), point[:, 2:]], 1), target)
        with torch.no_grad(), session.forward(after) as logits, session.forward(whole) as expected:
            assert torch.allclose(logits, expected, atol=1e-6), "After a prefix, the logits are other ones."
        _check_direction(session, after)


def _check_direction(session: InsideSession, batch: EmbeddedBatch) -> list[Tensor]:
    slopes = _slopes(session, batch)
    leaves = [part for part in (batch.prompts, batch.following) if part is not None]
    draw = torch.Generator().manual_seed(0)
    # Some families compute norms in fp32 for every dtype, so a smaller step would show rounding errors.
    steps = [torch.randn(leaf.shape, generator=draw, dtype=torch.float64).to(leaf.device) for leaf in leaves]
    steps = [1e-3 * step * float(leaf.norm() / step.norm()) for step, leaf in zip(steps, leaves, strict=True)]

    def moved(side: int) -> float:
        new = [(leaf + side * step).detach() for leaf, step in zip(leaves, steps, strict=True)]
        there = replace(batch, prompts=new[0], following=new[1] if len(new) > 1 else None)
        with torch.no_grad(), session.forward(there) as logits:
            return float(_objective(logits))

    change = sum(float((slope.double() * step).sum()) for slope, step in zip(slopes, steps, strict=True))
    assert change == pytest.approx((moved(1) - moved(-1)) / 2, rel=5e-3, abs=1e-9), "The gradient is wrong."
    return slopes


def _slopes(session: InsideSession, batch: EmbeddedBatch, *, recompute: bool = False) -> list[Tensor]:
    prompts = batch.prompts.detach().requires_grad_()
    following = None if batch.following is None else batch.following.detach().requires_grad_()
    leaves = [part for part in (prompts, following) if part is not None]
    there = replace(batch, prompts=prompts, following=following)
    with torch.enable_grad(), session.forward(there, recompute=recompute) as logits:
        return list(torch.autograd.grad(_objective(logits), leaves))


def check_trace(session: InsideSession, capabilities: frozenset[Capability], prompt: Tokens, target: Tokens) -> None:
    """Hidden states have a row per token; attention weights sum to 1 and are causal; unknown modules are refused."""
    longer = (*target, target[0])
    with pytest.raises(InputError, match="no-such-module"):
        session.trace(prompt, target, modules=("no-such-module",))
    if Capability.HIDDEN_STATES in capabilities:
        found, more = (session.trace(prompt, ids, hidden=True) for ids in (target, longer))
        _check_tokens(session, [states.shape[0] for states in found.hidden], prompt, target)
        assert [len(states) for states in more.hidden] == [len(states) + 1 for states in found.hidden]
        if not session.layout.joint:
            _check_tokens(session, [states.shape[0] for states in found.encoder_hidden], prompt)
        assert not found.attentions and not found.modules, "A trace must contain only what was requested."
    if Capability.ATTENTIONS not in capabilities:
        with pytest.raises(CapabilityError):
            session.trace(prompt, target, attentions=True)
        return
    found = session.trace(prompt, target, attentions=True)
    for weights in (*found.attentions, *found.encoder_attentions, *found.cross_attentions):
        assert torch.allclose(weights.sum(-1).double(), torch.ones((), dtype=torch.float64), atol=1e-3)
    for weights in found.attentions:
        assert float(weights.triu(1).abs().max()) == 0.0, "A token attends to later tokens."
    _check_tokens(session, [n for weights in found.attentions for n in weights.shape[-2:]], prompt, target)
    if not session.layout.joint:
        _check_tokens(session, [n for weights in found.encoder_attentions for n in weights.shape[-2:]], prompt)
        _check_tokens(session, [weights.shape[-1] for weights in found.cross_attentions], prompt)
        _check_tokens(session, [weights.shape[-2] for weights in found.cross_attentions], prompt, target)


def _check_tokens(session: InsideSession, sizes: list[int], prompt: Tokens, target: Tokens = ()) -> None:
    """There are such sizes, and all are the number of tokens that are read: of the encoder without a target."""
    assert sizes, "The trace lacks what was requested."
    assert len(set(sizes)) == 1, f"Layers of one trace have {sizes} tokens."
    if not target or session.layout.joint:
        assert sizes[0] == len(prompt) + max(0, len(target) - 1)
    else:
        assert sizes[0] >= len(target), "A decoder reads at least one token of its own, and the target but the last."


def hooks_of(model: object) -> list[int]:
    """Forward hooks of a torch module and its submodules; empty for any other object."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    return [key for module in modules for key in (*module._forward_hooks, *module._forward_pre_hooks)]


def _objective(logits: Float[Tensor, "B T V"]) -> Float[Tensor, ""]:
    """A differentiable function of the logits: log-probabilities of a token at the last position, summed."""
    return logits.double().log_softmax(-1)[:, -1, 7].sum()
