"""Models behind servers: what is asked, what every failure says, and what is left after it."""

from __future__ import annotations

import copy
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer, Fault
from apportion_backends.torch.backend import TorchBackend

PROMPT, TARGET = "one two three four five six", " seven"
KEY = "sk-canary-0123456789abcdef"
FAST: dict[str, object] = {"patience": 0.0}


@pytest.fixture
def server(session: ap.Session) -> Iterator[CompletionsServer]:
    with CompletionsServer(session, session.tokenizer) as found:
        yield found


pytestmark = pytest.mark.usefixtures("without_keys")


def explain(server: CompletionsServer, *, cache: Any = False, plugins: Any = (), **options: object) -> ap.Explainer:
    return ap.Explainer(
        server.address,
        tokenizer=tiny.tokenizer(),
        backend="openai",
        backend_options={**FAST, **options},
        cache=cache,
        plugins=plugins,
        progress=False,
    )


def here() -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False)


# --- values and counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "sglang", "openai"])
def test_values_are_those_of_the_model_here(session: ap.Session, engine: str) -> None:
    calls: list[dict[str, Any]] = [
        {"method": "ablation"},
        {"method": "shapley"},
        {"method": "kernel_shap", "budget": 40},
        {"method": "ablation", "contrast": " eight", "target_fn": "contrast_log_prob_diff"},
        {"method": "ablation", "attribute_generated": True},
    ]
    served = CompletionsServer(session, session.tokenizer, engine=engine)
    with served as server, explain(server) as there, here() as local:
        for call in calls:
            ours, theirs = (one.attribute(PROMPT, TARGET, **call) for one in (there, local))
            np.testing.assert_allclose(ours.values, theirs.values, atol=1e-9)
            np.testing.assert_allclose(ours.token_values, theirs.token_values, atol=1e-9)


def test_requests_and_rows_are_counted(server: CompletionsServer) -> None:
    with explain(server, rows=16) as explainer:
        opened = len(server.received), len(server.rows)
        explainer.attribute(PROMPT, TARGET, method="shapley")
        sent, rows = len(server.received) - opened[0], len(server.rows) - opened[1]
        assert (sent, rows) == (4, 64)
        estimated = explainer.estimate(PROMPT, TARGET, method="shapley")
        assert (estimated.requests, estimated.evaluations) == (4, 64)
        assert "64 distinct prompts in 4 requests" in dict(estimated.lines())["evaluations"]
        assert len(server.received) - opened[0] == sent, "An estimate sends nothing."


def test_rows_of_many_prompts_share_requests_in_prefix_order(server: CompletionsServer) -> None:
    with explain(server, rows=8) as explainer:
        before, rows = len(server.received), len(server.rows)
        [*explainer.attribute_many([PROMPT, PROMPT + " eight", "ten " + PROMPT], target=TARGET, method="ablation")]
        requests = [one.content["prompt"] for one in server.received[before:]]
        # Two of the 7 + 8 + 8 are the same as others.
        assert len(server.rows) - rows == 21 and len(requests) == 3
        assert all(prompts == sorted(prompts) for prompts in requests)


def test_the_model_writes_the_target(server: CompletionsServer) -> None:
    with explain(server) as there, here() as local:
        ours, theirs = (one.attribute(PROMPT, method="ablation") for one in (there, local))
        assert ours.target_text == theirs.target_text and ours.provenance.target_end == "limit"
        with pytest.raises(ap.InputError, match=r"no option 'num_beams'. It has: max_new_tokens"):
            there.attribute(PROMPT, generate={"num_beams": 2})


def test_a_server_that_names_no_tokens_does_not_write_targets(session: ap.Session) -> None:
    with CompletionsServer(session, session.tokenizer, engine="openai") as server, explain(server) as explainer:
        assert "does not name the tokens that it writes" in " ".join(explainer.session.info.notes)
        with pytest.raises(ap.CapabilityError, match="cannot generate with this model; give a target"):
            explainer.attribute(PROMPT)


def test_lanes_send_requests_at_once(session: ap.Session) -> None:
    with CompletionsServer(None, session.tokenizer, seconds_per_token=5e-4, slots=64) as server:
        with explain(server, rows=1, lanes=6) as explainer:
            explainer.attribute(PROMPT, TARGET, method="shapley")
        assert server.most_at_once == 6


def test_beginnings_that_a_server_keeps_are_read_once(session: ap.Session) -> None:
    beginning = "It was a long and dark night in the old house on the hill. " * 5
    prompt = ap.Template(f"{beginning}{{who}} went {{where}}", {"who": "Sam", "where": "out"})
    with (
        CompletionsServer(session, session.tokenizer, keeps_prefixes=True, context_length=None) as server,
        explain(server) as there,
        here() as local,
    ):
        for target, asked in (([7], [1, 3]), ([7, 9], [4, 4]), ([5] * 40, [4])):
            before = len(server.received)
            ours, theirs = (one.attribute(prompt, target, method="shapley") for one in (there, local))
            np.testing.assert_allclose(ours.token_values, theirs.token_values, atol=1e-9)
            assert [len(one.content["prompt"]) for one in server.received[before:]] == asked
        before = len(server.received)
        there.attribute(prompt, [11], method="shapley")
        assert [len(one.content["prompt"]) for one in server.received[before:]] == [4], "The beginning is kept."


def test_no_torch_module_and_no_weights(server: CompletionsServer) -> None:
    with explain(server) as explainer:
        assert not hasattr(explainer.session, "model") and explainer.session.info.weights_bytes is None
        with pytest.raises(ap.CapabilityError, match="gradients"):
            explainer.attribute(PROMPT, TARGET, method="saliency")


# --- opening --------------------------------------------------------------------------------------------------------


def test_an_address_alone_is_enough(session: ap.Session) -> None:
    with (
        CompletionsServer(session, session.tokenizer) as server,
        ap.Explainer(server.address.removesuffix("/v1"), progress=False) as explainer,
        here() as local,
    ):
        prompt = ap.Text(PROMPT, keep=["one"])
        ours, theirs = (one.attribute(prompt, TARGET, method="ablation") for one in (explainer, local))
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-9)
        assert ours.provenance.model == "tiny"
        assert "cut into tokens by the server" in " ".join(ours.provenance.notes)


@pytest.mark.parametrize(
    ("fault", "path", "error", "message"),
    [
        (
            Fault(404),
            "models",
            ap.ModelError,
            "no OpenAI-compatible API at .*The address ends with the path of the API",
        ),
        (Fault(200, '{"data": []}'), "models", ap.ModelError, "lists no models"),
        (Fault(200, "<html>"), "models", ap.ServerError, "answered something that is not JSON: '<html>'"),
        (Fault(301), "models", ap.ServerError, "has moved; give its new address"),
        (Fault(503), "models", ap.ServerError, "does not answer: 503"),
        (
            Fault(404),
            "completions",
            ap.ModelError,
            "neither scores given tokens .*prompt_logprobs: refused with 404.*nor writes texts .*that score: vLLM",
        ),
    ],
)
def test_what_is_no_server_is_refused(
    server: CompletionsServer, fault: Fault, path: str, error: type[Exception], message: str
) -> None:
    server.fail(fault, -1, path=path)
    with pytest.raises(error, match=message):
        explain(server)


def test_nobody_listens(server: CompletionsServer) -> None:
    server.stop()
    with pytest.raises(ap.ServerError, match=r"http://127.0.0.1:\d+/v1 does not answer: ConnectError: .*refused"):
        explain(server)


def test_a_chat_server_says_why_it_scores_nothing(session: ap.Session) -> None:
    reasons = "prompt_logprobs: refused .*; input_token_logprobs: .*; echo: "
    with CompletionsServer(session, session.tokenizer, engine="chat") as server, explain(server) as explainer:
        assert explainer.session.capabilities == {ap.Capability.TEXT}
        with pytest.raises(ap.CapabilityError, match=reasons):
            explainer.attribute(PROMPT, TARGET)


def test_one_of_several_models_is_named(server: CompletionsServer) -> None:
    two = json.dumps({"data": [{"id": "tiny"}, {"id": "other"}]})
    server.fail(Fault(200, two), -1, path="models")
    with pytest.raises(ap.InputError, match="has 2 models: tiny, other. Name one"):
        explain(server)
    with explain(server, model="tiny") as explainer:
        assert explainer.session.info.model == "tiny"
    with pytest.raises(ap.ModelError, match="no model 'third'. It has: tiny, other"):
        explain(server, model="third")


def test_another_tokenizer_is_refused(session: ap.Session) -> None:
    served = CompletionsServer(session, tiny.tokenizer(adds_start=True))
    with served as server, pytest.raises(ap.ModelError, match="The given tokenizer is not that of 'tiny'"):
        explain(server)


def test_a_server_without_tokenizer_needs_one_to_score(session: ap.Session) -> None:
    with CompletionsServer(session) as server:
        lacking = pytest.raises(ap.CapabilityError, match="does not show its tokenizer .*tokenizer= a hub id")
        with ap.Explainer(server.address, progress=False) as explainer, lacking:
            explainer.attribute(PROMPT, TARGET)
        with explain(server) as explainer:
            assert "could not be compared" in " ".join(explainer.session.info.notes)


def test_a_server_of_single_prompts_gets_single_prompts(server: CompletionsServer) -> None:
    server.fail(Fault(400, several=True), -1)
    with explain(server) as explainer, here() as local:
        ours, theirs = (one.attribute(PROMPT, TARGET, method="ablation") for one in (explainer, local))
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-9)
        assert "One prompt in each request" in " ".join(ours.provenance.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "lanes=0 must be a whole number of at least 1"),
        ({"timeout": 0}, "timeout=0 must be a number above 0"),
        ({"max_cost": 2.0}, "max_cost= needs price="),
        ({"price": -1}, "price=-1 must be a number of at least 0"),
        ({"key_file": "/nowhere/key"}, "key_file='/nowhere/key' cannot be read"),
        ({"key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY is empty or not set"),
    ],
)
def test_options_are_checked(server: CompletionsServer, options: dict[str, object], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        explain(server, **options)
    assert not server.received


# --- failures in the middle -----------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Any], Any]:
    def alter(answer: Any) -> Any:
        return {**answer, "choices": [{**one, name: None} for one in answer["choices"]]}

    return alter


def shorter(answer: Any) -> Any:
    cut = [{**one, "prompt_logprobs": one["prompt_logprobs"][:-1]} for one in answer["choices"]]
    return {**answer, "choices": cut}


def of_others(answer: Any) -> Any:
    for one in answer["choices"]:
        entry = one["prompt_logprobs"][-1]
        one["prompt_logprobs"][-1] = {str(int(token) + 7): value for token, value in entry.items()}
    return answer


def missing(answer: Any) -> Any:
    return {**answer, "choices": answer["choices"][1:]}


def not_a_number(answer: Any) -> Any:
    for one in answer["choices"]:
        one["prompt_logprobs"][-1] = {token: {"logprob": "low"} for token in one["prompt_logprobs"][-1]}
    return answer


FAILURES = [
    (Fault(500), "does not answer: 500: 'made to fail with 500'"),
    (Fault(429), "does not answer: 429"),
    (Fault(drop=True), "does not answer: RemoteProtocolError"),
    (Fault(401), "asks for a key. Set the environment variable APPORTION_API_KEY"),
    (Fault(404), "does not have this model"),
    (Fault(418), "refused a request. It said 418"),
    (Fault(200, "{"), "answered something that is not JSON: '{'"),
    (Fault(alter=without("prompt_logprobs")), "answered with no prompt_logprobs. Nothing of this answer was used"),
    (Fault(alter=shorter), r"answered with prompt_logprobs of \d+ tokens instead of"),
    (Fault(alter=of_others), r"answered with prompt_logprobs without token \d+"),
    (Fault(alter=missing), "choices .* for 8 prompts"),
    (Fault(alter=not_a_number), "answered with 'low' in place of a log-probability"),
]


@pytest.mark.parametrize(("fault", "message"), FAILURES, ids=[message[:30] for _, message in FAILURES])
def test_every_failure_is_one_line_and_keeps_what_was_answered(
    server: CompletionsServer, tmp_path: Path, fault: Fault, message: str
) -> None:
    cache = tmp_path / "cache.sqlite3"
    with explain(server, cache=cache, rows=8, lanes=1) as explainer:
        opened = len(server.rows)
        sent: list[int] = []

        def third(answer: Any) -> Any:
            sent.append(1)
            return answer

        server.fail(fault, -1)
        server.fail(Fault(alter=third), 2)
        with pytest.raises(ap.ServerError, match=message) as caught:
            explainer.attribute(PROMPT, TARGET, method="shapley")
        assert "\n" not in str(caught.value)
        assert "16 prompts scored and kept in the cache; run it again to go on." in str(caught.value)
        kept = 16
        server.recover()
        before = len(server.rows)
        assert before - opened >= kept
        result = explainer.attribute(PROMPT, TARGET, method="shapley")
        gone = fault.drop or fault.status in (500, 502, 503)
        compared = gone and fault.alter is None  # with the model as it was before the outage, by one row
        assert len(server.rows) - before == 64 - kept + compared and result.provenance.cached == kept
    with here() as local:
        np.testing.assert_allclose(result.values, local.attribute(PROMPT, TARGET, method="shapley").values, atol=1e-9)


def test_without_a_cache_the_message_says_how_to_keep_scores(server: CompletionsServer) -> None:
    with explain(server, rows=8, lanes=1) as explainer:
        server.fail(Fault(500), -1)
        with pytest.raises(ap.ServerError, match=r"0 prompts scored; with a cache \(cache=True\) scores are kept"):
            explainer.attribute(PROMPT, TARGET, method="shapley")


def test_a_busy_server_is_asked_again_with_fewer_requests_at_once(server: CompletionsServer) -> None:
    with explain(server, patience=20.0, rows=4, lanes=4) as explainer, here() as local:
        server.fail(Fault(429, headers={"Retry-After": "0"}), 3)
        result = explainer.attribute(PROMPT, TARGET, method="shapley")
        np.testing.assert_allclose(result.values, local.attribute(PROMPT, TARGET, method="shapley").values, atol=1e-9)
        assert "The server was busy: 1 request at once instead of 4." in result.provenance.notes
        assert explainer.session.client.meter.requests - result.provenance.evaluations / 4 == 3 + 3


def test_a_server_that_takes_too_long_is_not_waited_for(server: CompletionsServer) -> None:
    with explain(server, timeout=0.2) as explainer:
        server.fail(Fault(delay=1.0), -1)
        with pytest.raises(ap.ServerError, match=r"does not answer: it took longer than 0.2 s \(ReadTimeout\)"):
            explainer.attribute(PROMPT, TARGET, method="ablation")


def test_a_prompt_that_is_too_long_fails_alone(session: ap.Session) -> None:
    long = " ".join(["word"] * 60)
    with CompletionsServer(session, session.tokenizer, context_length=100) as server:
        with explain(server) as explainer, pytest.raises(ap.InputError, match="at most 99 tokens|99 tokens"):
            explainer.attribute(long, TARGET)
        server.fail(Fault(200, json.dumps({"data": [{"id": "tiny"}]})), -1, path="models")
        with explain(server) as explainer:
            found = [
                *explainer.attribute_many([PROMPT, long, PROMPT], target=TARGET, on_error="return", features="words")
            ]
            assert isinstance(found[1], ap.InputError) and "The server refuses a prompt and target of" in str(found[1])
            assert isinstance(found[0], ap.Attribution) and isinstance(found[2], ap.Attribution)


def test_a_server_that_is_gone_ends_all_prompts(server: CompletionsServer) -> None:
    with explain(server) as explainer:
        results = explainer.attribute_many(
            [PROMPT] * 40, target=TARGET, on_error="return", method="ablation", at_once=2
        )
        next(iter(results))
        server.stop()
        with pytest.raises(ap.ServerError, match="does not answer"):
            [*results]


def restarted(server: CompletionsServer, session: ap.Session, seconds: float) -> None:
    server.stop()
    server.session = session
    threading.Timer(seconds, server.start).start()


def test_a_server_may_start_again_in_the_middle(server: CompletionsServer, session: ap.Session) -> None:
    with explain(server, rows=8, lanes=1, patience=30.0) as explainer, here() as local:
        server.fail(Fault(alter=lambda answer: (restarted(server, session, 0.5), answer)[1]), 1)
        ours = explainer.attribute(PROMPT, TARGET, method="shapley")
        np.testing.assert_allclose(ours.values, local.attribute(PROMPT, TARGET, method="shapley").values, atol=1e-9)


def test_another_model_after_a_restart_is_noticed(server: CompletionsServer, session: ap.Session) -> None:
    other = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    with explain(server, rows=8, lanes=1, patience=30.0) as explainer:
        server.fail(Fault(alter=lambda answer: (restarted(server, other, 0.5), answer)[1]), 1)
        with pytest.raises(ap.ServerError, match="now has other weights under the name 'tiny'"):
            explainer.attribute(PROMPT, TARGET, method="shapley")


def test_models_of_one_name_do_not_share_scores(server: CompletionsServer, session: ap.Session, tmp_path: Path) -> None:
    other = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    found: list[tuple[np.ndarray, int]] = []
    for one in (session, other, session):
        server.session = one
        with explain(server, cache=tmp_path / "cache.sqlite3") as explainer:
            result = explainer.attribute(PROMPT, TARGET, method="ablation")
            found.append((result.values, result.provenance.cached))
    assert [cached for _, cached in found] == [0, 0, 7]
    np.testing.assert_array_equal(found[0][0], found[2][0])
    assert not np.allclose(found[0][0], found[1][0])


def test_a_cache_tells_slightly_other_weights_apart(
    server: CompletionsServer, session: ap.Session, tmp_path: Path
) -> None:
    model = copy.deepcopy(tiny.model())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.003)
    other = TorchBackend().load(
        ap.ModelSpec("other", tiny.tokenizer(), objects=model), device=None, dtype=None, memory_budget=None
    )
    cached = []
    for one in (session, other, session):
        server.session = one
        with explain(server, cache=tmp_path / "cache.sqlite3") as explainer:
            cached.append(explainer.attribute(PROMPT, TARGET, method="ablation").provenance.cached)
    assert cached == [0, 0, 7]


@pytest.mark.parametrize("fault", [Fault(503), Fault(drop=True)], ids=["busy", "dropped"])
def test_other_weights_after_an_outage_do_not_get_into_the_cache(
    server: CompletionsServer, session: ap.Session, tmp_path: Path, fault: Fault
) -> None:
    other = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    cache = tmp_path / "cache.sqlite3"
    with explain(server, cache=cache, patience=20.0) as explainer:
        server.session = other
        server.fail(fault, 1)
        with pytest.raises(ap.ServerError, match="now has other weights"):
            explainer.attribute(PROMPT, TARGET, method="ablation")
    server.session = session
    with explain(server, cache=cache) as explainer, here() as local:
        result = explainer.attribute(PROMPT, TARGET, method="ablation")
        assert result.provenance.cached == 0
        np.testing.assert_allclose(result.values, local.attribute(PROMPT, TARGET, method="ablation").values, atol=1e-9)


@pytest.mark.parametrize("cached", [False, True])
def test_other_weights_after_a_pause_end_the_run(
    server: CompletionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    other = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    with explain(server, cache=tmp_path / "cache.sqlite3" if cached else False) as explainer:
        server.session = other
        monkeypatch.setattr("apportion_backends.openai.served_session.IDLE_SECONDS", 0.0)
        with pytest.raises(ap.ServerError, match="now has other weights"):
            explainer.attribute(PROMPT, TARGET, method="ablation")


def test_a_quick_restart_between_two_calls_is_noticed(server: CompletionsServer) -> None:
    other = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    with explain(server, patience=20.0) as explainer:
        explainer.attribute(PROMPT, TARGET, method="ablation")
        server.stop()
        server.session = other
        server.start()
        with pytest.raises(ap.ServerError, match="now has other weights"):
            explainer.attribute(PROMPT + " eight", TARGET, method="ablation")


# --- odd answers ----------------------------------------------------------------------------------------------------


def indexes(index: Any) -> Callable[[Any], Any]:
    return lambda answer: {**answer, "choices": [{**one, "index": index} for one in answer["choices"]]}


def numbers(number: Any) -> Callable[[Any], Any]:
    def alter(answer: Any) -> Any:
        for one in answer["choices"]:
            one["prompt_logprobs"][-1] = {token: {"logprob": number} for token in one["prompt_logprobs"][-1]}
        return answer

    return alter


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(alter=indexes([0])), "without whole numbers as indexes"),
        (Fault(alter=indexes({})), "without whole numbers as indexes"),
        (Fault(alter=indexes(0)), "choices .* for 7 prompts"),
        (Fault(alter=numbers(-(10**400))), "in place of a log-probability"),
        (Fault(alter=numbers(float("-inf"))), "-inf in place of a log-probability"),
        (Fault(alter=numbers(float("nan"))), "nan in place of a log-probability"),
        (Fault(alter=numbers(0.5)), "0.5 in place of a log-probability"),
        (Fault(200, "[" * 100_000), "is not JSON"),
        (Fault(200, "This is not what gzip writes.", {"Content-Encoding": "gzip"}), "does not answer: DecodingError"),
        (Fault(400, '{"error": {"message": "quota exhausted"}}'), "refuses every request now .*quota exhausted"),
        (Fault(200, json.dumps({"choices": [{"index": KEY}]})), "without whole numbers"),
    ],
    ids=["list", "dict", "twice", "huge", "inf", "nan", "above 0", "deep", "gzip", "quota", "key"],
)
def test_odd_answers_end_in_one_line(
    server: CompletionsServer, monkeypatch: pytest.MonkeyPatch, fault: Fault, message: str
) -> None:
    monkeypatch.setenv("APPORTION_API_KEY", KEY)
    with explain(server) as explainer:
        server.fail(fault, -1)
        with pytest.raises(ap.ServerError, match=message) as caught:
            explainer.attribute(PROMPT, TARGET, method="ablation")
        assert KEY not in str(caught.value)


def test_one_failure_while_opening_changes_nothing(server: CompletionsServer) -> None:
    server.fail(Fault(429, headers={"Retry-After": "0"}), 1, path="models")
    server.fail(Fault(500), 1)
    with explain(server, patience=20.0) as explainer:
        assert explainer.session.info.notes == () and explainer.session.layout.batch_rows == 16


def test_a_server_that_says_come_back_at_once_is_not_hammered(server: CompletionsServer) -> None:
    with explain(server, patience=1.0) as explainer:
        before = explainer.session.client.meter.requests
        server.fail(Fault(429, headers={"Retry-After": "0"}), -1)
        with pytest.raises(ap.ServerError, match="does not answer after"):
            explainer.attribute(PROMPT, TARGET, method="ablation")
        assert explainer.session.client.meter.requests - before < 10


def test_an_answer_in_drops_is_too_late(server: CompletionsServer) -> None:
    with explain(server, timeout=0.5) as explainer:
        server.fail(Fault(200, "x" * 100, drip=0.05), -1)
        started = time.perf_counter()
        with pytest.raises(ap.ServerError, match="it took longer than 0.5 s"):
            explainer.attribute(PROMPT, TARGET, method="ablation")
        assert time.perf_counter() - started < 3


def test_an_interrupt_does_not_wait_for_the_server(server: CompletionsServer) -> None:
    with explain(server, lanes=2, rows=2) as explainer, here() as local:
        server.fail(Fault(delay=30.0), 8)
        main = threading.main_thread().ident
        timer = threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT])
        timer.start()
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            explainer.attribute(PROMPT, TARGET, method="shapley")
        assert time.perf_counter() - started < 10
        server.recover()
        ours, theirs = (one.attribute(PROMPT, TARGET, method="ablation") for one in (explainer, local))
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-9)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_no_more_requests_than_allowed(server: CompletionsServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite3"
    with explain(server, cache=cache, rows=8, lanes=2, max_requests=7) as explainer:
        opening = explainer.session.client.meter.requests
        with pytest.raises(ap.ServerError, match=r"limit of 7 requests is reached \(max_requests\). Raise it to go on"):
            explainer.attribute(PROMPT, TARGET, method="shapley")
        scoring = [one for one in server.received if one.path.endswith("completions")]
        assert len(scoring) == explainer.session.client.meter.requests == 7
    with explain(server, cache=cache, rows=8) as explainer:
        assert explainer.attribute(PROMPT, TARGET, method="shapley").provenance.cached == 8 * (7 - opening)


def test_no_more_is_spent_than_allowed(server: CompletionsServer) -> None:
    with explain(server, rows=8, lanes=2, price=1000.0, max_cost=2.0) as explainer:
        expected = explainer.estimate(PROMPT, TARGET, method="shapley")
        assert expected.price == pytest.approx(expected.forwarded_tokens / 1000)
        with pytest.raises(ap.ServerError, match=r"bring the cost to .*, above the limit of 2 \(max_cost\)"):
            explainer.attribute(PROMPT, TARGET, method="shapley")
        assert explainer.session.client.meter.cost <= 2.0


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["variable", "own variable", "file", "chat"])
def test_a_key_is_sent_and_never_shown(
    session: ap.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str
) -> None:
    options: dict[str, object] = {}
    if given == "file":
        (tmp_path / "secret").write_text(f"{KEY}\n", encoding="utf-8")
        options["key_file"] = str(tmp_path / "secret")
    else:
        name = "MY_KEY" if given == "own variable" else "APPORTION_API_KEY"
        monkeypatch.setenv(name, KEY)
        options |= {"key_variable": name} if given == "own variable" else {}
    left = tmp_path / "left"
    left.mkdir()
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    engine, call = ("chat", {"target_fn": "chrf"}) if given == "chat" else ("vllm", {})
    with CompletionsServer(session, session.tokenizer, key=KEY, engine=engine) as server:
        with ap.Explainer(
            server.address,
            tokenizer=tiny.tokenizer(),
            backend="openai",
            backend_options={**FAST, **options},
            cache=left / "cache.sqlite3",
            run_log=left / "log.jsonl",
            progress=False,
        ) as explainer:
            explainer.attribute(PROMPT, TARGET, method="ablation", **call).save(left / "result.json")
            said += [repr(explainer), repr(explainer.session), repr(vars(explainer.session.client))]
            # A server that quotes the key in its error, as OpenAI's does.
            server.fail(Fault(403, json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}})), -1)
            with pytest.raises(ap.ServerError, match="refuses the key") as caught:
                explainer.attribute(PROMPT + " nine", TARGET + " eight", method="ablation", **call)
            error: BaseException | None = caught.value
            while error is not None:
                said.append(f"{error!r} {error.args}")
                error = error.__cause__ or error.__context__
        assert all(one.authorization == f"Bearer {KEY}" for one in server.received)
    files = [path for path in left.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in caplog.text and not [text for text in said if KEY in text]


def test_a_key_of_openai_is_not_sent_to_others(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with explain(server):
        assert all(one.authorization is None for one in server.received)


def test_a_password_in_an_address_is_refused_unseen() -> None:
    with pytest.raises(ap.InputError, match="An address must not hold a name or password") as caught:
        ap.Explainer(f"http://me:{KEY}@localhost:1/v1")
    assert KEY not in str(caught.value)
    with pytest.raises(ap.InputError, match="An address must not hold a name or password"):
        ap.Explainer(ap.ModelSpec(f"http://me:{KEY}@localhost:1/v1"))


# --- Captum's remote provider ---------------------------------------------------------------------------------------


def test_the_facade_for_remote_models_runs_over_it(server: CompletionsServer) -> None:
    import apportion.captum as facade

    provider = facade.ServerProvider(server.address, tokenizer=tiny.tokenizer())
    remote = facade.RemoteLLMAttribution(
        facade.FeatureAblation(facade.RemoteLLMAttribution.placeholder_model), tiny.tokenizer(), provider
    )
    before = len(server.received)
    found = remote.attribute(facade.TextTokenInput(PROMPT, tiny.tokenizer()), target=TARGET)
    rows = len(tiny.tokenizer()(PROMPT)["input_ids"]) + 1
    assert len(server.received) - before == -(-rows // 16), "Perturbed prompts share requests."
    with here() as local:
        local_values = facade.LLMAttribution(facade.FeatureAblation(tiny.model()), tiny.tokenizer()).attribute(
            facade.TextTokenInput(PROMPT, tiny.tokenizer()), target=TARGET
        )
        np.testing.assert_allclose(found.seq_attr.numpy(), local_values.seq_attr.numpy(), atol=1e-5)
        assert local is not None
