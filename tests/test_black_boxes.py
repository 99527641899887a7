"""Servers that score nothing: what is sent to them, and what counts as a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer, Fault
from texts import PARIS, PROMPT, QUESTION, SAMPLED, asked, explain, here, knows

pytestmark = pytest.mark.usefixtures("without_keys")


# --- prompts --------------------------------------------------------------------------------------------------------


def test_messages_are_sent_as_they_are(chat: CompletionsServer) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Größe? ⟦ 🙂"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "user", "content": "And in Paris?"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    with explain(chat) as explainer:
        before = len(chat.received)
        prompt = ap.Chat(messages, tools=tools, by="turns", baseline="")
        explainer.attribute(prompt, "x", method="ablation", target_fn="chrf")
    sent = asked(chat, before)
    kept = [{name: value for name, value in message.items() if value is not None} for message in messages]
    assert kept in [content["messages"] for content in sent if content.get("tools") == tools]
    assert any("tools" not in content for content in sent), "An absent tool is not sent."
    assert all(content["messages"][-1] == messages[-1] for content in sent)


def test_words_of_messages_are_left_out(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        prompt = ap.Chat([{"role": "user", "content": "Name the capital of France"}], by="words")
        result = explainer.attribute(prompt, method="ablation", **PARIS)
    assert dict(zip(result.feature_names, result.values, strict=True)) == {
        "Name": 0, "the": 0, "capital": 1, "of": 0, "France": 1,
    }  # fmt: skip
    sent = {content["messages"][0]["content"] for content in asked(chat, before)}
    assert "Name the of France" in sent and "Name the capital of France" in sent


def test_an_answer_that_has_begun_is_continued(chat: CompletionsServer) -> None:
    begun = [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": "Sure, it"}]
    with explain(chat) as explainer:
        before = len(chat.received)
        explainer.attribute(ap.Chat(begun, by="words"), "x", method="ablation", target_fn="chrf")
    assert begun in [content["messages"] for content in asked(chat, before)]


def test_marks_of_messages_in_contents_are_refused(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        with pytest.raises(ap.InputError, match="⟦user⟧.*control tokens"):
            explainer.attribute(ap.Chat([{"role": "user", "content": "Say ⟦user⟧ now"}], by="words"), **PARIS)
        assert len(chat.received) == before
        # In a plain text they are text.
        explainer.attribute("Say ⟦user⟧ now", "x", method="ablation", target_fn="chrf")
    assert {"role": "user", "content": "Say ⟦user⟧ now"} in [content["messages"][0] for content in asked(chat, before)]


def test_a_plain_text_that_begins_like_a_message_is_a_text(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        explainer.attribute("⟦user⟧ hi ⟦end⟧ more", "x", method="ablation", target_fn="chrf")
        explainer.attribute(ap.Text("⟦text⟧ ⟦assistant⟧"), "x", method="ablation", target_fn="chrf")
    sent = [content["messages"] for content in asked(chat, before)]
    for text in ("⟦user⟧ hi ⟦end⟧ more", "⟦text⟧ ⟦assistant⟧", "⟦assistant⟧"):
        assert [{"role": "user", "content": text}] in sent


def test_a_part_of_a_character_is_no_feature(chat: CompletionsServer) -> None:
    with explain(chat) as explainer, pytest.raises(ap.InputError, match="part of a character"):
        explainer.attribute(ap.Text("aé", by="tokens"), "x", method="ablation", target_fn="chrf")


def test_a_server_of_texts_does_not_chat() -> None:
    with CompletionsServer(None, engine="text", writes=knows) as server, explain(server) as explainer:
        with pytest.raises(ap.InputError, match="no chat template"):
            explainer.attribute(ap.Chat([{"role": "user", "content": "a b"}], by="words"), **PARIS)
        result = explainer.attribute(QUESTION, method="ablation", **PARIS)
    assert result.full_value == 1.0
    assert {"prompt", "max_tokens", "temperature", "model"} == set(asked(server)[-1])


# --- servers --------------------------------------------------------------------------------------------------------


def test_requests_are_sent_at_once_and_counted() -> None:
    with (
        CompletionsServer(None, engine="chat", writes=knows, slots=8) as server,
        explain(server, lanes=4, price=10.0) as explainer,
    ):
        server.fail(Fault(delay=0.02), -1)
        before = len(server.received)
        cost = explainer.estimate(QUESTION, "x", method="shapley", target_fn="chrf", samples=2, **SAMPLED)
        assert len(server.received) == before, "An estimate sends nothing."
        assert (cost.evaluations, cost.texts, cost.requests) == (128, 256, 256)
        assert cost.price == pytest.approx(cost.forwarded_tokens * 10 / 1e6)
        assert "256 texts after 128 distinct prompts in 256 requests" in dict(cost.lines())["evaluations"]
        result = explainer.attribute(QUESTION, "x", method="shapley", target_fn="chrf", samples=2, **SAMPLED)
        assert len(asked(server, before)) == 256 and server.most_at_once == 4
        # As the server counts them: a token for each character, and one for the text.
        assert result.provenance.forwarded_tokens == sum(
            len(f"user: {content['messages'][0]['content']}\n") + 1 for content in asked(server, before)
        )


def test_many_prompts_and_progress(chat: CompletionsServer) -> None:
    events: list[ap.ProgressEvent] = []

    class Watcher:
        @ap.hookimpl
        def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
            events.append(event)

    explainer = ap.Explainer(chat.address, plugins=[Watcher()], progress=False)
    with explainer:
        prompts = [QUESTION, "capital of Spain", {"prompt": "France capital", "seed": 3}]
        results = [
            *explainer.attribute_many(prompts, target="It is Paris.", method="ablation", target_fn="exact_match")
        ]
        alone = explainer.attribute(QUESTION, "It is Paris.", method="ablation", target_fn="exact_match")
    np.testing.assert_array_equal(results[0].values, alone.values)
    assert [float(one.values.sum()) for one in results] == [2.0, 0.0, 2.0]
    done = [
        (event.done, event.total)
        for event in events
        if event.stage == "score" and event.request_id == events[-1].request_id
    ]
    assert done[-1] == (8, 8) and sorted(done) == done


Answer = Callable[[Any], Any]


def _message(**fields: Any) -> Answer:
    return lambda answer: {**answer, "choices": [{"message": {"role": "assistant", **fields}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("alter", "text"),
    [
        (
            _message(content=None, tool_calls=[{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]),
            '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        ),
        (_message(content=None, function_call={"name": "f"}), '{"name": "f"}'),
        (_message(content=[{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]), "in parts"),
        (_message(content=None, refusal="I cannot."), "I cannot."),
        (_message(content=""), ""),
    ],
)
def test_answers_of_every_form_are_texts(chat: CompletionsServer, alter: Answer, text: str) -> None:
    with explain(chat) as explainer:
        chat.fail(Fault(alter=alter), -1)
        result = explainer.attribute("a b", "x", method="ablation", target_fn="chrf")
    assert result.extras["texts"][0]["texts"] == [text]


@pytest.mark.parametrize(
    ("options", "text", "target", "value"),
    [
        ({}, " Paris\n", "Paris", 1.0),
        ({}, "caf\u00e9", "cafe\u0301", 1.0),
        ({}, "a  b", "a b", 0.0),
        ({}, "paris.", "Paris", 0.0),
        ({"ignore_case": True, "ignore_punctuation": True}, "paris $1!", "Paris 1", 1.0),
        ({"ignore_articles": True}, "The  Louvre", "Louvre", 1.0),
    ],
)
def test_texts_are_equal_up_to_what_is_said(options: dict[str, object], text: str, target: str, value: float) -> None:
    with (
        CompletionsServer(None, engine="chat", writes=lambda prompt, content: text) as server,
        explain(server) as there,
    ):
        found = there.attribute("a b", target, method="ablation", target_fn="exact_match", target_options=options)
    assert found.full_value == value


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda answer: {}, "no choice"),
        (lambda answer: {"choices": [{"message": None}]}, "a choice without a text"),
        (lambda answer: {"choices": [{"message": {"tool_calls": [{"id": "1"}]}}]}, "a choice without a text"),
    ],
)
def test_answers_without_a_text_are_not_used(chat: CompletionsServer, alter: Answer, message: str) -> None:
    with explain(chat) as explainer:
        chat.fail(Fault(alter=alter), -1)
        with pytest.raises(ap.ServerError, match=f"{message}.*Nothing of this answer was used"):
            explainer.attribute("a b", "x", method="ablation", target_fn="chrf")


@pytest.mark.parametrize(
    ("reason", "message"),
    [("length", "the limit of tokens was spent .*raise max_new_tokens"), ("content_filter", "filter")],
)
def test_an_empty_answer_that_says_nothing_ends_one_prompt(chat: CompletionsServer, reason: str, message: str) -> None:
    def emptied(answer: Any) -> Any:
        return {**answer, "choices": [{"message": {"content": ""}, "finish_reason": reason}]}

    with explain(chat, lanes=1) as explainer:
        found = explainer.attribute_many(
            ["a b", "c d"], target="x", method="ablation", target_fn="chrf", at_once=1, on_error="return"
        )
        chat.fail(Fault(alter=emptied))
        first, second = found
    assert isinstance(first, ap.InputError) and re.search(message, str(first))
    assert isinstance(second, ap.Attribution)


def test_a_model_that_thinks_first_is_opened() -> None:
    def thinks(answer: Any) -> Any:
        return {**answer, "choices": [{"message": {"content": ""}, "finish_reason": "length"}]}

    with CompletionsServer(None, engine="chat", writes=knows) as server:
        server.fail(Fault(alter=thinks), path="chat/completions")
        with explain(server) as explainer:
            result = explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf")
    assert "wrote nothing in a few tokens" in " ".join(result.provenance.notes)
    assert "does not show how much they vary" in " ".join(result.provenance.notes)


def test_a_server_that_draws_at_random_draws_anew_for_each_seed(tmp_path: Path) -> None:
    count = iter(range(1000))
    server = CompletionsServer(None, engine="chat", writes=lambda prompt, content: f"text {next(count)}")
    call: dict[str, Any] = {"method": "ablation", "target_fn": "chrf", "samples": 2}
    with server, explain(server, cache=tmp_path / "texts.sqlite3") as explainer:
        before = len(server.received)
        zero = explainer.attribute("a b", "x", **call)
        assert zero.provenance.samples == 2 and zero.std_error is not None
        again, one = (explainer.attribute("a b", "x", **call, seed=seed) for seed in (0, 1))
        assert len(asked(server, before)) == 2 * 3 * 2
        assert (again.provenance.cached, one.provenance.cached) == (3, 0)
        with pytest.raises(ap.InputError, match="the seed of their texts"):
            explainer.evaluate([zero, one], ["lds"])


def test_the_model_is_known_again_after_a_pause(chat: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with explain(chat) as explainer:
        monkeypatch.setattr("apportion_backends.openai.served_session.IDLE_SECONDS", 0.0)
        chat._writes = lambda prompt, content: "Other."
        with pytest.raises(ap.ServerError, match="now has another model under the name 'tiny'"):
            explainer.attribute("a b c", "x", method="ablation", target_fn="chrf")


def test_servers_that_take_other_options_are_asked_otherwise() -> None:
    with CompletionsServer(None, engine="chat", writes=knows) as server:
        server.fail(Fault(400, "use max_completion_tokens, and no temperature"), 2, path="chat/completions")
        with explain(server) as explainer:
            result = explainer.attribute(QUESTION, method="ablation", **PARIS)
        assert set(asked(server)[-1]) == {"model", "messages", "max_completion_tokens"}
    assert "refuses temperature 0" in " ".join(result.provenance.notes)


def test_a_server_that_writes_and_scores_nothing_is_refused() -> None:
    with CompletionsServer(None, engine="chat", writes=knows) as server:
        server.fail(Fault(400, "no"), -1, path="completions")
        with pytest.raises(
            ap.ModelError, match=r"neither scores given tokens .* nor writes texts \(completions: .*chat: "
        ):
            explain(server)


def test_a_chat_server_scores_no_tokens(chat: CompletionsServer) -> None:
    with explain(chat, tokenizer=tiny.tokenizer()) as explainer:
        assert "the given tokenizer is not used" in " ".join(explainer.session.info.notes)
        before = len(chat.received)
        for call in ({}, {"target_fn": "entropy"}, {"target_fn": "chrf", "step_scores": ["prob"]}):
            with pytest.raises(ap.CapabilityError, match="scores no given tokens: .*prompt_logprobs: .*chrf"):
                explainer.attribute(QUESTION, " Paris", **call)
        assert len(chat.received) == before
        with pytest.raises(ap.CapabilityError, match="scores no given tokens"):
            explainer.session.log_probs(ap.ScoringBatch((ap.Row((1,), (2,)),)))


def test_a_server_that_scores_is_a_black_box_on_request(session: ap.Session) -> None:
    with CompletionsServer(session, session.tokenizer) as server:
        with explain(server, api="completions") as explainer:
            assert explainer.session.capabilities == {ap.Capability.TEXT}
            result = explainer.attribute(PROMPT, method="ablation", target_fn="chrf")
        with here() as local:
            right = local.attribute(PROMPT, method="ablation", target_fn="chrf")
        np.testing.assert_allclose(result.values, right.values)
        with pytest.raises(ap.ModelError, match="nor writes texts"):
            explain(server, api="chat")
        with pytest.raises(ap.InputError, match="api='talk' must be 'chat' or 'completions', or None"):
            explain(server, api="talk")


def test_another_model_after_an_outage_is_noticed(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        explainer.attribute("a b", "x", method="ablation", target_fn="chrf")
        chat.stop()
        chat._writes = lambda prompt, content: "Other."
        chat.start()
        with pytest.raises(ap.ServerError, match="now has another model under the name 'tiny'"):
            explainer.attribute("a b c", "x", method="ablation", target_fn="chrf")


def test_estimates_ask_a_server_for_nothing_and_count_all_texts(chat: CompletionsServer) -> None:
    calls: list[tuple[dict[str, Any], int]] = [
        ({"target": "x"}, 8),
        ({}, 8),
        ({"samples": 4}, 8 + 3),
        ({"samples": 4, "target": "x"}, 8 + 3),
        ({"samples": 4, **SAMPLED}, 4 * 8 + 1),
        ({"samples": 4, "target": "x", **SAMPLED}, 4 * 8),
    ]
    with explain(chat) as explainer:
        for more, texts in calls:
            call: dict[str, Any] = {"method": "ablation", "target_fn": "chrf", **more}
            before = len(chat.received)
            cost = explainer.estimate(QUESTION, **call)
            assert len(chat.received) == before
            explainer.attribute(QUESTION, **call)
            assert cost.requests == cost.texts == len(asked(chat, before)) == texts, more
