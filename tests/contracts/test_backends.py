"""The built-in backends keep the contract, over every architecture and precision that they are for."""

from __future__ import annotations

import pytest

from apportion.testing import BackendContract, tiny
from apportion_backends.torch.backend import TorchBackend

# BLOOM computes its softmax and Mamba its scan in float32 whatever the dtype.
FLOAT32_PARTS = {"bloom", "mamba"}


class TestTorch(BackendContract):
    name = "torch"
    families = tiny.FAMILIES
    dtypes = ("float64",)

    @pytest.fixture
    def backend(self) -> TorchBackend:
        return TorchBackend()

    def tolerance(self, family: str, dtype: str) -> float:
        return 1e-6 if family in FLOAT32_PARTS and dtype == "float64" else super().tolerance(family, dtype)


class TestTorchInSinglePrecision(TestTorch):
    dtypes = ("float32", "bfloat16", "float16")
    families = tiny.FAMILIES
