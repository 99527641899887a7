"""The built-in target functions keep the contract."""

from __future__ import annotations

import pytest
import torch

import apportion as ap
from apportion.testing import TargetContract
from apportion_plugins.targets.likelihood import LogProb, Prob


class TestLogProb(TargetContract):
    name = "log_prob"

    @pytest.fixture
    def target_fn(self) -> LogProb:
        return LogProb()

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        each = [row.log_softmax(-1)[token] for row, token in zip(logits, target.ids, strict=True)]
        return torch.stack([sum(each), *each])


class TestProb(TestLogProb):
    name = "prob"

    @pytest.fixture
    def target_fn(self) -> Prob:
        return Prob()

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        return super().expected(logits, target).exp()
