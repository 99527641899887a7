"""The built-in backends keep the contract, over every architecture and precision that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import apportion as ap
from apportion.testing import BackendContract, reference, tiny, tiny_pictures
from apportion.testing.echo import EchoBackend, echo_logits, echo_spec
from apportion.testing.server import CompletionsServer
from apportion_backends.onnxruntime.backend import OnnxRuntimeBackend
from apportion_backends.openai.backend import OpenAIBackend
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.triton.backend import TritonBackend
from exports import Exports, genai_model

# BLOOM and Gemma 2 compute their softmax and Mamba its scan in float32 whatever the dtype.
FLOAT32_PARTS = {"bloom", "gemma2", "mamba"}


class TestTorch(BackendContract):
    name = "torch"
    families = tiny.FAMILIES
    dtypes = ("float64",)

    @pytest.fixture
    def backend(self) -> TorchBackend:
        return TorchBackend()

    def tolerance(self, family: str, dtype: str) -> float:
        return 1e-6 if family in FLOAT32_PARTS and dtype == "float64" else super().tolerance(family, dtype)


class TestTorchReadsPictures(BackendContract):
    """Every family of image-text models; what is not about pictures is checked by the others."""

    picture_families = tiny_pictures.FAMILIES
    families = ("llama",)

    @pytest.fixture
    def backend(self) -> TorchBackend:
        return TorchBackend()


class TestTorchInSinglePrecision(TestTorch):
    dtypes = ("float32", "bfloat16", "float16")
    families = tiny.FAMILIES


class TestTorchReadsApart(TestTorch):
    """Encoder–decoder models."""

    families = tiny.SEQ2SEQ_FAMILIES


class TestTorchReadsApartInSinglePrecision(TestTorchReadsApart):
    dtypes = ("float32", "bfloat16", "float16")


class EveryKernel(TritonBackend):
    """With every kernel wherever it gives the right numbers, whether it pays or not."""

    def load(
        self,
        spec: ap.ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
    ):
        return super().load(spec, device=device, dtype=dtype, memory_budget=memory_budget, kernels="always")


class TestTriton(BackendContract):
    """On a GPU, or interpreted."""

    name = "triton"
    dtypes = ("float32", "float16", "bfloat16")
    families = ("llama", "gpt2", "qwen3", "gemma3", "mamba", "phi3")

    @pytest.fixture
    def backend(self) -> TritonBackend:
        return EveryKernel()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def opened(cls) -> Iterator[None]:
        """Numbers of one model are checked in one session: to open one takes a trial of the kernels."""
        with ExitStack() as cls.stack:
            cls.sessions: dict[tuple[str, str], ap.Session] = {}
            yield

    @contextmanager
    def session(self, backend: TritonBackend, family: str = "", dtype: str = "") -> Iterator[ap.Session]:
        if not dtype:
            with super().session(backend, family) as session:
                yield session
            return
        key = family or self.families[0], dtype
        if key not in self.sessions:
            self.sessions[key] = self.stack.enter_context(super().session(backend, *key))
        yield self.sessions[key]


class TestTritonWherePays(TestTriton):
    """By its cost model, which leaves fp64 and most of fp32 to PyTorch."""

    dtypes = ("float64", "bfloat16")
    families = ("llama", "bloom")

    @pytest.fixture
    def backend(self) -> TritonBackend:
        return TritonBackend()

    def tolerance(self, family: str, dtype: str) -> float:
        return 1e-6 if family in FLOAT32_PARTS and dtype == "float64" else super().tolerance(family, dtype)


class TestOnnxRuntime(BackendContract):
    """Exports of tiny models."""

    name = "onnxruntime"
    families = ("llama", "gpt2", "qwen3", "gemma3", "opt")

    @pytest.fixture
    def backend(self) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend()

    @pytest.fixture(autouse=True)
    def _exports(self, exports: Exports) -> None:
        self.exports = exports

    def spec(self, family: str, dtype: str) -> ap.ModelSpec:
        return ap.ModelSpec(str(self.exports(family)))


class TestDecodersOfOthers(TestOnnxRuntime):
    """In the layout of optimum, and as ONNX Runtime GenAI builds them."""

    families = ("llama", "gpt2", "genai")
    test_an_export_is_the_model = None

    def spec(self, family: str, dtype: str) -> ap.ModelSpec:
        return ap.ModelSpec(str(self.exports.genai() if family == "genai" else self.exports.optimum(family)))

    def expected_logits(self, family: str, dtype: str, prompt, target, media=()):
        if family == "genai":
            return reference.logits(genai_model(), prompt, target)
        return super().expected_logits(family, dtype, prompt, target, media)


class TestEcho(BackendContract):
    """Without any model: what is expected is known in closed form."""

    families = ("echo",)
    dtypes = ("float64",)
    media = tuple(ap.Media.of("image", name.encode()) for name in ("red", "blue"))

    @pytest.fixture
    def backend(self) -> EchoBackend:
        return EchoBackend(images=True)

    def spec(self, family: str, dtype: str) -> ap.ModelSpec:
        return echo_spec()

    def expected_logits(self, family: str, dtype: str, prompt, target, media=()):
        return echo_logits(prompt, target, media)


class TestEchoInLanes(TestEcho):
    @pytest.fixture
    def backend(self) -> EchoBackend:
        return EchoBackend(lanes=3)


class TestEchoApart(TestEcho):
    @pytest.fixture
    def backend(self) -> EchoBackend:
        return EchoBackend(joint=False)


class TestOpenAI(BackendContract):
    """A server that answers as vLLM does, over the torch backend."""

    name = "openai"
    engine = "vllm"
    families = ("llama", "gpt2")

    @pytest.fixture
    def backend(self) -> OpenAIBackend:
        return OpenAIBackend()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def served(cls) -> Iterator[None]:
        with ExitStack() as cls.stack:
            cls.servers: dict[str, CompletionsServer] = {}
            yield

    def spec(self, family: str, dtype: str) -> ap.ModelSpec:
        if family not in self.servers:
            session = TorchBackend().load(tiny.spec(family), device=None, dtype=dtype, memory_budget=None)
            server = CompletionsServer(session, session.tokenizer, engine=self.engine)
            self.servers[family] = self.stack.enter_context(server)
        return ap.ModelSpec(self.servers[family].address, tiny.tokenizer())


class TestOpenAIWithSGLang(TestOpenAI):
    engine = "sglang"


class TestOpenAIWithEcho(TestOpenAI):
    engine = "openai"
