"""vLLM itself, in an environment of its own: its numbers are those of the torch backend."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import apportion as ap
from apportion.models.demo import demo_model_path
from apportion_backends.openai.served_session import IDLE_SECONDS

PYTHON = Path(os.environ.get("APPORTION_VLLM_PYTHON", ".venv-vllm/bin/python"))
START_SECONDS = 300.0
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
SLOTS = ap.Template(
    "{name} lives in {city}, {state} and is a {job}. {whose} personal interests include",
    {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "whose": "His"},
)
LONG = ap.Template(
    "Read the following text with care, and say in one word what the person likes. " * 12 + "{who} plays {what}. It is",
    {"who": "Dave", "what": "golf"},
)
TOLERANCE = 1e-3

pytestmark = [
    pytest.mark.engine,
    pytest.mark.demo,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason=f"no vLLM at {PYTHON}: make test-engine installs it"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(demo_model_path())]
    command += ["--served-model-name", "demo", "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(command, env={**os.environ, **SETTINGS}, stdout=out, stderr=out)
        try:
            found = f"http://127.0.0.1:{port}/v1"
            until = time.monotonic() + START_SECONDS
            while not _listens(found):
                assert server.poll() is None and time.monotonic() < until, f"vLLM: {log.read_text()[-2000:]}"
                time.sleep(0.5)
            yield found
        finally:
            server.terminate()
            server.wait(60)


def _listens(address: str) -> bool:
    try:
        return httpx.get(f"{address}/models").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served(address: str) -> Iterator[ap.Explainer]:
    # Without tokenizer=: the folder that the server names is on this machine.
    with ap.Explainer(address, progress=False) as explainer:
        yield explainer


def sent(served: ap.Explainer) -> int:
    """The requests so far, and the one by which the model is known again if the server was idle for long."""
    client = served.session.client
    return client.meter.requests + (client.idle > IDLE_SECONDS)


def test_it_is_seen_as_what_it_is(served: ap.Explainer) -> None:
    session = served.session
    assert session.info.context_length == 1023 and session.info.model == "demo"
    assert {one.value for one in session.capabilities} == {"log_probs", "generate", "text"}
    assert session.client.meter.requests <= 6


@pytest.mark.parametrize(
    ("method", "options", "requests"),
    [("ablation", {}, 1), ("shapley", {}, 2), ("kernel_shap", {"budget": 28}, 2)],
)
def test_values_are_those_of_torch(
    served: ap.Explainer, smollm2: ap.Explainer, method: str, options: dict[str, int], requests: int
) -> None:
    before = sent(served)
    ours, theirs = (one.attribute(SLOTS, " playing golf", method=method, **options) for one in (served, smollm2))
    np.testing.assert_allclose(ours.values, theirs.values, atol=TOLERANCE)
    np.testing.assert_allclose(ours.token_values, theirs.token_values, atol=TOLERANCE)
    assert ours.provenance.evaluations == theirs.provenance.evaluations
    assert served.session.client.meter.requests - before == requests


def test_kept_beginnings_give_the_same_values(served: ap.Explainer, smollm2: ap.Explainer) -> None:
    before = sent(served)
    ours, theirs = (one.attribute(LONG, " golf", method="shapley") for one in (served, smollm2))
    np.testing.assert_allclose(ours.values, theirs.values, atol=TOLERANCE)
    assert served.session.client.meter.requests - before == 2, "One for the beginning, one for the other prompts."


def test_it_writes_the_same_target(served: ap.Explainer, smollm2: ap.Explainer) -> None:
    ours, theirs = (
        one.attribute("The capital of France is", method="ablation", features="words", generate={"max_new_tokens": 6})
        for one in (served, smollm2)
    )
    assert ours.target_text == theirs.target_text
    np.testing.assert_allclose(ours.values, theirs.values, atol=TOLERANCE)


def test_texts_are_those_of_torch(served: ap.Explainer, smollm2: ap.Explainer) -> None:
    """Greedy ones, after the same messages: by token ids, by the chat API without a tokenizer, and here."""
    chat = ap.Chat(
        [{"role": "user", "content": "What is the capital of France?"}], by="words", keep=["What", "is", "the", "of"]
    )
    call = {"method": "shapley", "target_fn": "regex", "target_options": {"pattern": "Paris"}}
    call["generate"] = {"max_new_tokens": 8}
    with ap.Explainer(
        f"{served.session.client.address.base}", backend="openai", backend_options={"api": "chat"}, progress=False
    ) as black_box:
        assert black_box.session.capabilities == {ap.Capability.TEXT}
        found = [one.attribute(chat, **call) for one in (served, smollm2, black_box)]
        before = black_box.session.client.meter.requests
        again = black_box.rescore(found[2], "chrf")
        assert black_box.session.client.meter.requests == before
    texts = [[row["texts"] for row in one.extras["texts"]] for one in found]
    assert texts[0] == texts[1] == texts[2]
    assert found[0].values.tolist() == found[1].values.tolist() == found[2].values.tolist()
    assert again.full_value == pytest.approx(100.0)


def test_sampled_texts_have_noise_and_are_the_same_again(served: ap.Explainer) -> None:
    call = {"method": "ablation", "target_fn": "chrf", "samples": 3, "features": "words"}
    call["generate"] = {"do_sample": True, "max_new_tokens": 6}
    first, second = (served.attribute("The capital of France is", " Paris", **call) for _ in range(2))
    assert first.std_error is not None and (first.std_error > 0).all()
    assert first.values.tolist() == second.values.tolist(), "The same seeds draw the same texts."
