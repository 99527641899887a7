"""The backend ``triton``: which kernels it uses and says so, and what it says where it cannot run."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import apportion as ap
from apportion.testing import tiny

pytest.importorskip("triton", reason="triton is not installed")

from apportion_backends.triton import trial
from apportion_backends.triton.costs import LEAST_PREFIX, Costs
from apportion_backends.triton.linear_logprob import HeadScores

PROMPT = "Dave lives in Palm Coast, FL. He likes"
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def explainer(family: str = "llama", dtype: torch.dtype = torch.float32, **options: object) -> ap.Explainer:
    pair = tiny.model(family, dtype), tiny.tokenizer()
    return ap.Explainer(pair, backend="triton", progress=False, backend_options=options or None)


@pytest.mark.demo
@pytest.mark.slow
def test_the_demo_models_numbers_are_those_of_torch() -> None:
    """With every kernel, on a short prompt."""
    found = []
    for backend, options in (("torch", None), ("triton", {"kernels": "always"})):
        with ap.Explainer("smollm2", backend=backend, backend_options=options, progress=False) as one:
            found.append(one.attribute(PROMPT, " golf.", method="ablation", features="words"))
    torchs, tritons = found
    assert tritons.provenance.backend == "triton"
    assert any("linear_logprob" in note for note in tritons.provenance.notes)
    assert tritons.token_values == pytest.approx(torchs.token_values, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "dtype", "options", "said"),
    [
        ("llama", torch.bfloat16, {}, "fused with the head"),
        ("llama", torch.float32, {}, "log-probabilities of float32 models are computed by PyTorch"),
        ("llama", torch.float32, {"kernels": "always"}, "fused with the head"),
        ("llama", torch.float64, {"kernels": "always"}, "log-probabilities of float64 models are computed by PyTorch"),
    ],
)
def test_the_result_says_what_was_fused(family: str, dtype: torch.dtype, options: dict[str, str], said: str) -> None:
    with explainer(family, dtype, **options) as one:
        notes = one.attribute("one two three", " x", method="shapley").provenance.notes
    assert any(said in note for note in notes), notes


def test_a_head_that_is_more_than_a_product_stays_with_torch() -> None:
    model = tiny.model("llama", torch.float32)
    scaled = copy.deepcopy(model)
    forward = scaled.forward

    def louder(*args: object, **kwargs: object) -> object:
        found = forward(*args, **kwargs)
        found.logits = found.logits * 1.5
        return found

    scaled.forward = louder
    prompt, asked = "one two three", {"target": " x", "method": "shapley"}
    with ap.Explainer((scaled, tiny.tokenizer()), backend="triton", backend_options={"kernels": "always"}) as ours:
        found = ours.attribute(prompt, **asked)
    with ap.Explainer((scaled, tiny.tokenizer()), backend="torch") as theirs:
        expected = theirs.attribute(prompt, **asked)
    assert any("more than a product" in note for note in found.provenance.notes)
    assert found.values == pytest.approx(expected.values, abs=1e-5)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda *_, **__: 1 / 0, "failed here (ZeroDivisionError: division by zero)"),
        (lambda hidden, *_, **__: HeadScores(torch.zeros(len(hidden)), torch.zeros(len(hidden))), "is off by"),
    ],
)
def test_a_kernel_that_does_not_work_here_is_not_used(
    broken: Callable[..., object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "linear_logprob", broken)
    asked = {"target": " x", "method": "shapley"}
    with explainer(kernels="always") as one:
        found = one.attribute("one two three", **asked)
    with ap.Explainer((tiny.model("llama", torch.float32), tiny.tokenizer()), backend="torch") as other:
        assert found.values == pytest.approx(other.attribute("one two three", **asked).values, abs=1e-5)
    assert any(said in note for note in found.provenance.notes), found.provenance.notes


def test_what_pays() -> None:
    half, single, double = (Costs(dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64))
    assert (half.head, single.head, double.head) == (True, False, False)
    assert half.prefix(LEAST_PREFIX, 2)
    assert not half.prefix(LEAST_PREFIX - 1, 2)
    assert not half.prefix(LEAST_PREFIX, 1)
    always = Costs(torch.float32, always=True)
    assert always.head
    assert always.prefix(1, 1)
    assert not always.prefix(0, 1)
    assert not Costs(torch.float64, always=True).head


def test_an_unknown_choice_of_kernels_is_refused() -> None:
    with pytest.raises(ap.BackendError, match="kernels='some'.*'auto' or 'always'"):
        explainer(kernels="some").attribute("one", " x")


def program(code: str, **environment: str) -> str:
    """What a Python of its own prints."""
    known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=known | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


NAMED = """
import apportion as ap
from apportion.testing import tiny
pair = tiny.model(), tiny.tokenizer()
try:
    ap.Explainer(pair, backend="triton").attribute("one two", " x")
except ap.BackendError as error:
    print("refused:", error)
result = ap.Explainer(pair).attribute("one two", " x", method="ablation")
print("auto:", result.provenance.backend)
"""


@NO_GPU
def test_without_a_gpu_it_says_why_and_auto_goes_on() -> None:
    said = program(NAMED)
    assert "refused:" in said
    assert "finds no CUDA device" in said
    assert "NVIDIA GPU" in said
    assert "TRITON_INTERPRET=1" in said
    assert "auto: torch" in said


@NO_GPU
def test_auto_never_takes_the_interpreter() -> None:
    result = ap.Explainer((tiny.model(), tiny.tokenizer())).attribute("one two", " x", method="ablation")
    assert result.provenance.backend == "torch"


@NO_GPU
def test_the_list_of_backends_says_why_not() -> None:
    said = program("from apportion.cli import main; main(['backends'])", COLUMNS="200", TERM="dumb")
    (line,) = [line for line in said.splitlines() if "triton" in line and "cuda" in line]
    assert "no" in line


def test_without_triton_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.backend import Unavailable
    from apportion_backends.triton import backend

    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    state = backend.TritonBackend().availability()
    assert isinstance(state, Unavailable)
    assert "pip install 'apportion[triton]'" in state.hint
