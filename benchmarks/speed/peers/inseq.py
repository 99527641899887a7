"""Inseq's occlusion of the prompt's tokens, and their effect on the probability of each target token.

It replaces a token's embedding by that of the unknown token (token 0 for the demo model), for one target token after
the other. It also occludes the target's earlier tokens, which is not needed here.
"""

from __future__ import annotations

import copy
import logging
import warnings

import numpy as np
from benchmarks.speed.peer import Peer, Run

from apportion_backends.torch.session import TorchSession

__all__ = ["occlusion"]


def occlusion(text: str, target: str) -> Peer:
    """Absolute changes in probability, one row per target token."""

    def prepare(model: TorchSession) -> Run:
        import inseq

        logging.getLogger("inseq").setLevel(logging.ERROR)
        # Inseq changes the padding of the tokenizer.
        attribution = inseq.load_model(model.model, "occlusion", tokenizer=copy.deepcopy(model.tokenizer))

        def run() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attribution.attribute(text, text + target, show_progress=False)
            first = found.sequence_attributions[0]
            rows: np.ndarray = first.target_attributions[: first.attr_pos_start].T.double().numpy()
            return rows

        return run

    return Peer("inseq", prepare, 1e-4)
