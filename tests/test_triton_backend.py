"""The backend ``triton``: the kernels that it uses, its notes on them, and its messages where it cannot run."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import apportion as ap
from apportion.testing import tiny
from forks import Forks

pytest.importorskip("triton", reason="triton is not installed")

from apportion_backends.triton import trial
from apportion_backends.triton.costs import LEAST_PREFIX, Costs
from apportion_backends.triton.runtime import interpreting

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral"])
def test_packed_rows_read_what_they_share_from_one_copy(family: str, dtype: torch.dtype) -> None:
    """Several batches: from the second on, all rows continue from kept keys and values."""
    prompt = ap.Template("The beginning of all is {a}, {b}, {c} and {d}.", dict.fromkeys("abcd", "x"), {"a": "yy"})
    found = []
    for backend, options in (("triton", {"kernels": "always"}), ("torch", {})):
        pair = tiny.model(family, dtype), tiny.tokenizer()
        # Little memory, so that there are several batches.
        settings = {"backend_options": options, "memory_budget": 2**18, "progress": False}
        with ap.Explainer(pair, backend=backend, **settings) as one:
            found.append(one.attribute(prompt, " it", method="shapley"))
    ours, theirs = found
    assert any("shared_prefix_attention" in note for note in ours.provenance.notes), ours.provenance.notes
    assert not any("shared_prefix_attention" in note for note in theirs.provenance.notes)
    assert ours.token_values == pytest.approx(theirs.token_values, abs=1e-5 if dtype == torch.float32 else 0.02)


def test_what_torch_computed_is_not_called_fused() -> None:
    with explainer(dtype=torch.bfloat16) as one:
        logits = one.attribute("a b", " c", method="ablation", target_fn="entropy").provenance.notes
        log_probs = one.attribute("a b", " c", method="ablation").provenance.notes
    assert any("Logits for the target function were computed by PyTorch" in note for note in logits)
    assert not any("fused" in note for note in logits)
    assert any("fused" in note for note in log_probs)
    assert not any("ogits for the target" in note for note in log_probs)


@pytest.mark.parametrize("change", [lambda m: m.double(), lambda m: m.float(), lambda m: transposed(m.lm_head)])
def test_a_model_that_was_changed_is_tried_again(change: Callable[[torch.nn.Module], object]) -> None:
    model = copy.deepcopy(tiny.model("llama", torch.bfloat16))
    found = []
    for backend in ("triton", "torch"):
        with ap.Explainer((copy.deepcopy(model), tiny.tokenizer()), backend=backend, progress=False) as one:
            change(one.session.model)
            found.append(one.attribute("one two", " x", method="ablation").values)
    assert found[0] == pytest.approx(found[1], abs=0.02)


def transposed(head: torch.nn.Linear) -> None:
    """Give the head the same weights, not contiguous in the last dimension."""
    head.weight = torch.nn.Parameter(head.weight.detach().T.contiguous().T)


def test_what_overflows_is_an_error_as_with_torch() -> None:
    model = copy.deepcopy(tiny.model("llama", torch.float32))
    (token,) = tiny.tokenizer()("z")["input_ids"]
    model.model.embed_tokens.weight.data[token, 0] = 7e4  # too large for fp16
    with (
        ap.Explainer((model, tiny.tokenizer()), backend="triton", dtype="float16", progress=False) as one,
        pytest.raises(ap.ScoreError, match="not finite"),
    ):
        one.attribute("a z", " d", method="ablation")


@NO_GPU
def test_threads_take_turns_in_the_interpreter() -> None:
    with explainer(kernels="always") as one:
        expected = one.attribute("a b", " c", method="ablation").values
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: in_a_thread(), range(6)))
    assert all(values == pytest.approx(expected, abs=1e-6) for values in found)


def in_a_thread() -> object:
    with explainer(kernels="always") as one:
        return one.attribute("a b", " c", method="ablation").values


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
        (lambda hidden, *_, **__: torch.zeros(len(hidden)), "is off by"),
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
    assert [(cost.head, cost.least_prefix) for cost in (half, single, double)] == [
        (True, LEAST_PREFIX),
        (False, None),
        (False, None),
    ]
    always = [Costs(dtype, always=True) for dtype in (torch.float32, torch.float64)]
    assert [(cost.head, cost.least_prefix) for cost in always] == [(True, 1), (False, None)]


def test_an_unknown_choice_of_kernels_is_refused() -> None:
    with pytest.raises(ap.BackendError, match="kernels='some'.*'auto' or 'always'"):
        explainer(kernels="some").attribute("one", " x")


@pytest.fixture
def program(forks: Forks) -> Callable[..., str]:
    """Runs a program in a process whose kernels are not interpreted; returns what it prints."""

    def run(code: str, **environment: str) -> str:
        done = forks.run(code, env={"TRITON_INTERPRET": "0"} | environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


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
def test_without_a_gpu_it_says_why_and_auto_goes_on(program: Callable[..., str]) -> None:
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
def test_the_list_of_backends_says_why_not(program: Callable[..., str]) -> None:
    said = program("from apportion.cli import main; main(['backends'])", COLUMNS="200", TERM="dumb")
    (line,) = [line for line in said.splitlines() if "triton" in line and "cuda" in line]
    assert "no" in line


def test_a_triton_that_cannot_be_imported_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.protocols.backend import Unavailable
    from apportion_backends.triton import backend

    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    state = backend.TritonBackend().availability()
    assert isinstance(state, Unavailable)
    assert "cannot be imported" in state.reason or not interpreting()


def test_without_triton_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.protocols.backend import Unavailable
    from apportion_backends.triton import backend

    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    state = backend.TritonBackend().availability()
    assert isinstance(state, Unavailable)
    assert "pip install 'apportion[triton]'" in state.hint
