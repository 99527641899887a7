"""Checks of a session's access to the model's internals, for the contract of backends."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, InputError
from apportion.protocols.backend import Capability
from apportion.protocols.inside import InsideSession

__all__ = ["check_gradient", "check_logits_of_embeddings", "check_trace", "hooks_of"]

Tokens = tuple[int, ...]


def check_logits_of_embeddings(
    session: InsideSession, prompt: Tokens, target: Tokens, expected: Float[Tensor, "T V"], allowed: float
) -> None:
    """Embeddings are detached, and give the logits of their tokens."""
    embedded = session.embeddings(prompt)
    assert not embedded.requires_grad, "embeddings() must be detached."
    point = torch.stack([embedded, 0.5 * embedded]).requires_grad_()
    with torch.enable_grad():
        logits = session.logits_of(point, target)
    assert torch.allclose(logits[0].detach().cpu().double(), expected, atol=allowed, rtol=1e-3), (
        "The logits of embeddings differ from those of their tokens."
    )
    torch.autograd.grad(_objective(logits), point)
    assert point.grad is None, "The gradient must not accumulate in `grad` of the embeddings."


def check_gradient(session: InsideSession, prompt: Tokens, target: Tokens) -> None:
    """The derivative along a random direction equals a finite difference; only for models in float64."""
    embedded = session.embeddings(prompt)
    point = torch.stack([embedded, 0.5 * embedded]).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_objective(session.logits_of(point, target)), point)
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(point.shape, generator=draw, dtype=torch.float64).to(point.device)
    # Some families compute norms in fp32 for every dtype, so a smaller step would show rounding errors.
    step = 1e-3 * direction * float(point.detach().norm() / direction.norm())
    with torch.no_grad():
        up, down = (float(_objective(session.logits_of((point + side * step).detach(), target))) for side in (1, -1))
    change = float((gradient.double() * step).sum())
    assert change == pytest.approx((up - down) / 2, rel=5e-3, abs=1e-9), "The gradient is wrong."


def check_trace(session: InsideSession, capabilities: frozenset[Capability], ids: Tokens) -> None:
    """Hidden states have a row per token; attention weights sum to 1 and are causal; unknown modules are refused."""
    if Capability.HIDDEN_STATES in capabilities:
        found = session.trace(ids, hidden=True)
        assert len(found.hidden) > 1
        assert all(states.shape[0] == len(ids) for states in found.hidden)
        assert not found.attentions and not found.modules, "A trace must contain only what was requested."
    if Capability.ATTENTIONS not in capabilities:
        with pytest.raises(CapabilityError):
            session.trace(ids, attentions=True)
    else:
        for weights in session.trace(ids, attentions=True).attentions:
            assert weights.shape[-2:] == (len(ids), len(ids))
            assert torch.allclose(weights.sum(-1).double(), torch.ones((), dtype=torch.float64), atol=1e-3)
            assert float(weights.triu(1).abs().max()) == 0.0, "A token attends to later tokens."
    with pytest.raises(InputError, match="no-such-module"):
        session.trace(ids, modules=("no-such-module",))


def hooks_of(model: object) -> list[int]:
    """Forward hooks of a torch module and its submodules; empty for any other object."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    return [key for module in modules for key in (*module._forward_hooks, *module._forward_pre_hooks)]


def _objective(logits: Float[Tensor, "B T V"]) -> Float[Tensor, ""]:
    """A differentiable function of the logits: log-probabilities of one token at one position, summed."""
    return logits.double().log_softmax(-1)[:, 1, 7].sum()
