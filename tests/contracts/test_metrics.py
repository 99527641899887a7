"""The built-in metrics keep the contract that plugin authors subclass."""

from __future__ import annotations

import pytest

from apportion.hooks.manager import load_plugins
from apportion.testing import MetricContract


class BuiltIn(MetricContract):
    """The metric that is registered under ``name``."""

    name: str

    @pytest.fixture
    def metric(self) -> object:
        return load_plugins()["metrics"].get(self.name).make()


class TestDeletion(BuiltIn):
    name = "deletion"
    budget = 11


class TestDeletionInFewSteps(TestDeletion):
    options = {"steps": 3}
    budget = 8


class TestInsertion(BuiltIn):
    name = "insertion"
    budget = 11


class TestAreaBetween(BuiltIn):
    name = "area_between"
    budget = 20


class TestAopc(BuiltIn):
    name = "aopc"
    budget = 11


class TestAopcOfTheLeast(TestAopc):
    options = {"order": "least", "steps": 4}


class TestAopcOfTheDifference(TestAopc):
    options = {"order": "difference", "steps": 4}


class TestComprehensiveness(BuiltIn):
    name = "comprehensiveness"
    budget = 6


class TestSufficiency(BuiltIn):
    name = "sufficiency"
    budget = 6


class TestTopKDrop(BuiltIn):
    name = "top_k_drop"
    budget = 2


class TestTopThreeDrop(TestTopKDrop):
    options = {"k": 3}
    budget = 3


class TestLds(BuiltIn):
    name = "lds"
    sampled = True
    budget = 64


class TestInfidelity(BuiltIn):
    name = "infidelity"
    sampled = True
    budget = 65


class TestSensitivityN(BuiltIn):
    name = "sensitivity_n"
    sampled = True
    budget = 161


class TestSensitivityTwo(TestSensitivityN):
    options = {"n": 0.2, "draws": 8}
    budget = 9
