"""A trial of the kernels before they are used: the model's own weights, a few tokens, compared with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import Row
from apportion_backends.torch.head import Head, target_log_probs
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed import PackedModel
from apportion_backends.torch.packed_attention import TrunkAttention
from apportion_backends.torch.session import TorchSession
from apportion_backends.triton.costs import Costs
from apportion_backends.triton.linear_logprob import linear_logprob
from apportion_backends.triton.shared_prefix_attention import shared_prefix_attention
from apportion_backends.triton.tiles import Tiles

__all__ = ["Trial", "try_kernels"]

HEAD_TOLERANCE = 1e-3
"""Nats by which two orders of summation in fp32 may differ."""
MANY_ROWS = 4096
"""Rows of a large batch, which gets other tiles than a few rows."""
ATTENTION_TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""Tolerated difference of hidden states, relative to their standard deviation: each layer rounds to the dtype."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Outcome of trying the kernels.

    Attributes:
        head: the fused head gives the right log-probabilities.
        prefixes: packed rows get the right hidden states with the fused attention to shared prefixes.
        fault: failure of the fused head; empty if there was none.
    """

    head: bool
    prefixes: bool
    fault: str = ""


def try_kernels(session: TorchSession, costs: Costs) -> Trial:
    """Try the kernels that the cost model may choose."""
    vocabulary = session.model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (2, 9), generator=torch.Generator().manual_seed(0)).tolist()
    target = (ids[1][0],)
    rows = [Row(tuple(ids[0]), target), Row((*ids[0][:6], *ids[1][6:]), target)]
    fault = ""
    if costs.head and session.linear_head:
        fault = _fault_of_head(session, rows)
    tried = costs.least_prefix is not None and session.layout.packing
    return Trial(not fault, tried and _same_behind_prefix(session, rows), fault)


def _fault_of_head(session: TorchSession, rows: list[Row]) -> str:
    """The kernel's fault, with the tiles of few rows or of many; empty if there is none."""
    batch = ScoringBatch(tuple(rows))
    with scoring_mode(session.model):
        head = Head.of(session.model)
        states = session.hidden(batch)[:, 0]
        target = batch.targets()[0][:, 0].to(states.device)
        expected = target_log_probs(states, head, target)
        bare = head.bias is None and head.soft_cap is None
        for tiles in dict.fromkeys(Tiles.of(rows, head.weight, bare=bare) for rows in (len(states), MANY_ROWS)):
            try:
                found = linear_logprob(states, head.weight, target, head.bias, soft_cap=head.soft_cap, tiles=tiles)
                worst = float((found - expected).abs().max())
            except Exception as error:
                # A driver, compiler or device that the kernel has never run with; PyTorch takes over.
                return f"failed here ({type(error).__name__}: {str(error)[:200]})"
            if not worst <= HEAD_TOLERANCE:
                return f"is off by {worst:.2g} nats here"
    return ""


def _same_behind_prefix(session: TorchSession, rows: list[Row]) -> bool:
    """True if packed rows get the same hidden states with the kernel."""
    model = session.model
    with scoring_mode(model):
        theirs = PackedModel(model).hidden(rows)[1:]
        fused = PackedModel(model, fused=TrunkAttention(1, shared_prefix_attention))
        try:
            fused.hidden(rows[:1])
            # These continue from the keys and values kept of the first row.
            ours = fused.hidden(rows[1:])
        except Exception:
            # As above, or the heads are too large.
            return False
    scale = float(theirs.double().std()) or 1.0
    return float((ours - theirs).abs().max()) <= ATTENTION_TOLERANCE.get(model.dtype, 1e-4) * scale
