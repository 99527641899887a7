"""Inseq's scores of the prompt's tokens, for the probability of each target token.

Occlusion replaces a token's embedding by that of the unknown token (token 0 for the demo model), for one target token
after the other. It also occludes the target's earlier tokens, which is not needed here.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from benchmarks.speed.peer import Peer, Run
from torch import Tensor

from apportion_backends.torch.session import TorchSession

__all__ = ["gradients", "occlusion"]


def occlusion(text: str, target: str) -> Peer:
    """Absolute changes in probability, one row per target token."""
    return _peer("occlusion", text, target, {}, lambda scores: scores)


def gradients(method: str, text: str, target: str, dims: Callable[[Tensor], Tensor], **options: object) -> Peer:
    """A gradient method, for the probability of each target token; one row per target token.

    Args:
        method: its name in Inseq.
        text: the prompt.
        target: the target.
        dims: makes one number of the hidden dimensions of a score.
        **options: options of the method.
    """
    return _peer(method, text, target, options, dims)


def _peer(method: str, text: str, target: str, options: Mapping[str, object], dims: Callable[[Tensor], Tensor]) -> Peer:
    def prepare(model: TorchSession) -> Run:
        import inseq

        logging.getLogger("inseq").setLevel(logging.ERROR)
        # Inseq changes the padding of the tokenizer.
        attribution = inseq.load_model(model.model, method, tokenizer=copy.deepcopy(model.tokenizer))

        def run() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attribution.attribute(text, text + target, show_progress=False, **options)
            first = found.sequence_attributions[0]
            scores = dims(first.target_attributions[: first.attr_pos_start])
            rows: np.ndarray = scores.T.double().numpy()
            return rows

        return run

    return Peer("inseq", prepare, 1e-4)
