"""The package context-cite on given sentences, because its own partitioner needs data downloaded by NLTK."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from benchmarks.speed.peer import Peer, Run

import apportion as ap
from apportion_backends.torch.session import TorchSession

__all__ = ["SameMasks", "citer"]


class SameMasks:
    """A sampler that reproduces the draws of context-cite: one ``RandomState`` per mask, seeded by its index."""

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> ap.Coalitions:
        """Draw ``budget`` masks, with each feature present with probability one half."""
        rows = [np.random.RandomState(seed).choice([False, True], n_features, p=[0.5, 0.5]) for seed in range(budget)]
        return ap.Coalitions(torch.from_numpy(np.stack(rows)), torch.ones(budget, dtype=torch.float64))


def citer(sentences: Sequence[str], question: str, response: str, *, ablations: int) -> Peer:
    """context-cite's attribution of a response."""

    def prepare(model: TorchSession) -> Run:
        with _quiet():
            from context_cite import ContextCiter

            tokenizer = copy.deepcopy(model.tokenizer)  # context-cite changes the pad token
            partitioner = _partitioner(sentences)

        def run() -> np.ndarray:
            with _quiet():
                made = ContextCiter(
                    model.model, tokenizer, partitioner.context, question, num_ablations=ablations,
                    partitioner=partitioner,
                )  # fmt: skip
                # context-cite generates a response itself; put a fixed one in its cache instead.
                made._cache["output"] = made._get_prompt_ids(return_prompt=True)[1] + response
                found: np.ndarray = made.get_attributions(verbose=False)
            return found

        return run

    return Peer("context-cite", prepare, 1e-2, "the difference is due to its Lasso, which stops earlier than ours")


def _partitioner(sentences: Sequence[str]) -> Any:
    from context_cite.context_partitioner import BaseContextPartitioner

    class Given(BaseContextPartitioner):
        """Sentences with a space between them, as context-cite joins its own."""

        @property
        def num_sources(self) -> int:
            return len(sentences)

        def split_context(self) -> None: ...

        def get_source(self, index: int) -> str:
            return sentences[index]

        def get_context(self, mask: np.ndarray | None = None) -> str:
            return " ".join(s for i, s in enumerate(sentences) if mask is None or mask[i])

    return Given(" ".join(sentences))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress its progress bar and the warnings of its imports."""
    logging.getLogger("ContextCite").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
