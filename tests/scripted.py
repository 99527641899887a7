"""A backend that likes some texts and writes what it is told, so that tests decide what is likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import apportion as ap
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.model import ModelSpec
from apportion.testing import tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_spec

__all__ = ["Scripted", "Session", "ids_of", "scripted"]


def ids_of(text: str) -> tuple[int, ...]:
    """One token per byte."""
    return tuple(tiny.tokenizer()(text)["input_ids"])


class Scripted(EchoBackend):
    """Gives texts that end with one of ``likes`` 0.01 nats a token, and all others 3; writes ``writes``."""

    def __init__(self, likes: Sequence[str] = (), writes: Sequence[int] = (), *, joint: bool = True) -> None:
        super().__init__(joint=joint)
        self.likes, self.writes = tuple(likes), tuple(writes)

    def load(self, spec: ModelSpec, **options: object) -> Session:
        opened = super().load(spec, device=None, dtype=None, memory_budget=None)
        session = Session(opened.tokenizer, opened.layout, opened.capabilities, 2**20)
        session.script = self
        return session


class Session(EchoSession):
    """Counts the tokens that it writes in ``written``, and takes stop texts."""

    script: Scripted
    written = 0

    def log_probs(self, batch: ScoringBatch) -> Tensor:
        self.asked.append(batch.rows)
        texts = [str(self.tokenizer.decode([*row.prompt, *row.target])) for row in batch.rows]
        value = [0.01 if text.endswith(self.script.likes) else 3.0 for text in texts]
        return -torch.tensor(value, dtype=torch.float64)[:, None].expand(-1, batch.n_targets).clone()

    def generate(
        self,
        prompt: ap.ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        limit = options.get("max_new_tokens", 25)
        assert isinstance(limit, int)
        for count in range(1, len(self.script.writes) + 1):
            ids = self.script.writes[:count]
            text = self.tokenizer.decode(list(ids))
            if count == limit or any(one in text for one in stop):
                break
        self.written += count
        return ids

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Prompt and target of every row that was asked for."""
        decode = self.tokenizer.decode
        return [(str(decode(row.prompt)), str(decode(row.target))) for batch in self.asked for row in batch]


def scripted(backend: Scripted, **options: object) -> ap.Explainer:
    """An explainer of this backend, with one token per byte."""
    return ap.Explainer(echo_spec(), backend=backend, progress=False, **options)
