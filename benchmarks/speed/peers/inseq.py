"""Inseq's occlusion of the prompt's tokens: what each of them changes in the probability of each target token.

It puts the embedding of the unknown token in a token's place (for the demo model that is token 0), one target token
after the other, and occludes the target's earlier tokens as well, which nobody asked for here.
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
    """Absolute changes of the probabilities, a row for each target token."""

    def prepare(model: TorchSession) -> Run:
        import inseq

        logging.getLogger("inseq").setLevel(logging.ERROR)
        # It changes how the tokenizer pads.
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
