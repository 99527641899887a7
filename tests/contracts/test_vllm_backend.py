"""The backend ``vllm`` keeps the contract, with the demo model: vLLM takes no model as small as the others."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import transformers

import apportion as ap
from apportion.models.demo import demo_model_path
from apportion.testing import BackendContract, reference
from apportion_backends.beginnings import pays
from apportion_backends.vllm.backend import VLLMBackend

pytestmark = [
    pytest.mark.engine,
    pytest.mark.demo,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="no vLLM here; see make test-engine"),
]

SETTINGS = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}


class TestVLLM(BackendContract):
    name = "vllm"
    families = ("demo",)

    @pytest.fixture
    def backend(self) -> VLLMBackend:
        return VLLMBackend()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def opened(cls) -> Iterator[None]:
        """One engine for all checks, because it takes long to start."""
        os.environ.update(SETTINGS)
        folder = str(demo_model_path())
        cls.model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        cls.known: ap.Session | None = None
        yield
        if cls.known is not None:
            cls.known.close()

    def spec(self, family: str, dtype: str) -> ap.ModelSpec:
        return ap.ModelSpec("smollm2")

    def expected_logits(self, family: str, dtype: str, prompt, target, media=()):
        return reference.logits(self.model, prompt, target)

    @contextmanager
    def session(self, backend: VLLMBackend, family: str = "", dtype: str = "") -> Iterator[ap.Session]:
        known = type(self).known
        if known is None or known._engine is None:
            known = backend.load(self.spec(family, dtype), max_length=512)
            type(self).known = known
        yield known

    def test_kept_beginnings_change_nothing(self, backend: VLLMBackend) -> None:
        beginning = tuple(range(100, 300))
        rows = [ap.Row((*beginning, 7, 40 + i), target) for i in range(4) for target in ((5,), (5, 9))]
        assert pays(rows)
        with self.session(backend) as session:
            for row, found in zip(rows, session.log_probs(ap.ScoringBatch(tuple(rows))), strict=True):
                expected = self.expected("demo", "float32", row.prompt, row.target)
                assert float((found[: len(row.target)] - expected).abs().max()) < 1e-4
