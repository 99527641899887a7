"""A target or contrast without the usual space before it: the result asks if another spelling was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import apportion as ap
from apportion.testing import chats
from scripted import Scripted, Session, ids_of, scripted
from small_tokenizers import KINDS

LIKES = ("is Paris", "is Rome", "assistant\nParis", 'said "Hello', "\nParis")
PROMPT = "The capital is"


@pytest.fixture
def explainer() -> ap.Explainer:
    return scripted(Scripted(LIKES))


def asked(result: ap.Attribution) -> list[str]:
    return [note for note in result.provenance.notes if note.startswith("Did you mean")]


def rows(explainer: ap.Explainer) -> list[tuple[str, str]]:
    assert isinstance(explainer.session, Session)
    return explainer.session.rows


@pytest.mark.parametrize(
    ("prompt", "target", "question"),
    [
        (PROMPT, "Paris", "' Paris', with a space at its beginning? Its log-probability is −0.06 instead of −15.00"),
        (PROMPT, "  Paris", "' Paris', with one space at its beginning? Its log-probability is −0.06 instead of −21"),
        (f"{PROMPT} ", "Paris", None),  # with bytes, both read the same
        (f"{PROMPT} ", " Paris", "' Paris' after the prompt without the space at its end? Its log-probability is −0.0"),
        (f"{PROMPT}  ", "Paris", "' Paris' after the prompt without the space at its end? Its log-probability is −0.0"),
        (f"{PROMPT}\n", " Paris", "'Paris', without a space at its beginning? Its log-probability is −0.05 instead of"),
        ('He said "', " Hello", "'Hello', without a space at its beginning?"),
        (PROMPT, " Paris", None),
        (PROMPT, "\nParis", None),
        (f"{PROMPT} \n  ", "Paris", None),
        (f"{PROMPT}\n", "    Paris", None),
        ("The capital is Par", "is", None),
        ("我爱北京，你", "呢", None),
    ],
)
def test_the_space_that_was_meant(explainer: ap.Explainer, prompt: str, target: str, question: str | None) -> None:
    found = asked(explainer.attribute(prompt, target, method="ablation"))
    assert len(found) == (question is not None)
    assert not found or found[0].startswith(f"Did you mean {question}")


def documents(*, chat: bool) -> ap.Documents:
    options = {"as_chat": True, "chat_template": chats.CHATML} if chat else {"layout": "{question}\n{context} is"}
    return ap.Documents("Where is it?", ["It left.", "The capital"], **options)


@pytest.mark.parametrize(
    ("prompt", "target", "meant"),
    [
        (ap.Text(PROMPT, by="tokens"), "Paris", "' Paris'"),
        (ap.Template("The {what} is", {"what": "capital"}, {"what": ["city", "town"]}), "Paris", "' Paris'"),
        (ap.Chat([{"role": "user", "content": "Where to?"}], "words", chat_template=chats.CHATML), " Paris", "'Paris'"),
        (documents(chat=False), "Paris", "' Paris'"),
        (documents(chat=True), " Paris", "'Paris'"),
    ],
)
def test_every_kind_of_prompt(explainer: ap.Explainer, prompt: object, target: str, meant: str) -> None:
    (question,) = asked(explainer.attribute(prompt, target, method="ablation"))
    assert question.startswith(f"Did you mean {meant}, with")
    assert not asked(explainer.attribute(prompt, meant.strip("'"), method="ablation"))


def test_it_costs_one_row_which_is_not_counted(explainer: ap.Explainer) -> None:
    cost = explainer.estimate(PROMPT, "Paris", method="shapley")
    assert not any(target == " Paris" for _, target in rows(explainer)), "an estimate asks nothing"
    before = len(rows(explainer))
    result = explainer.attribute(PROMPT, "Paris", method="shapley", budget=8)
    (*scored, last) = rows(explainer)[before:]
    assert last == (PROMPT, " Paris")
    assert len(scored) == 8 == result.provenance.evaluations == cost.evaluations
    assert result.provenance.forwarded_tokens == cost.forwarded_tokens
    assert result.provenance.cached == 0


@pytest.mark.parametrize(("options", "count"), [({"target_fn": "prob"}, 2), ({"target_fn": "logit"}, 2)])
def test_other_scores_are_compared_by_log_probabilities(
    explainer: ap.Explainer, options: dict[str, str], count: int
) -> None:
    result = explainer.attribute(PROMPT, "Paris", method="ablation", **options)
    assert asked(result)
    assert rows(explainer)[-count:] == [(PROMPT, " Paris"), (PROMPT, "Paris")]
    assert result.provenance.evaluations == 4


def test_values_are_those_without_the_question() -> None:
    plain = scripted(Scripted(("is", "Paris"))).attribute(PROMPT, "Paris", method="shapley")
    questioned = scripted(Scripted(("is", "Paris"))).attribute(PROMPT, ids_of("Paris"), method="shapley")
    np.testing.assert_array_equal(plain.values, questioned.values)


def test_the_contrast_is_compared_too(explainer: ap.Explainer) -> None:
    result = explainer.attribute(PROMPT, " Paris", target_fn="contrast_log_prob_diff", contrast="Rome")
    (question,) = asked(result)
    assert question.startswith("Did you mean ' Rome'")


def test_many_prompts_are_compared_together(explainer: ap.Explainer) -> None:
    several = [f"{word} {PROMPT}" for word in ("So", "Then", "But")]
    found = list(explainer.attribute_many(several, target="Paris", method="ablation"))
    assert [len(asked(result)) for result in found] == [1, 1, 1]
    assert [result.provenance.evaluations for result in found] == [5, 5, 5]
    assert isinstance(explainer.session, Session)
    assert len(explainer.session.rows) == 3 * 5 - 2 + 3, "the prompt without its first word is scored once for all"
    assert [row.target for row in explainer.session.asked[-1]] == [ids_of(" Paris")] * 3


@pytest.mark.parametrize("ask", [lambda e: e.attribute(PROMPT, ids_of("Paris")), lambda e: e.attribute(PROMPT)])
def test_ids_and_what_the_model_wrote_are_meant(ask: Callable[[ap.Explainer], ap.Attribution]) -> None:
    explainer = scripted(Scripted(LIKES, writes=ids_of("Paris")))
    assert not asked(ask(explainer))
    assert not any(target == " Paris" for _, target in rows(explainer))


def test_what_a_decoder_reads_apart_has_no_space_before_it() -> None:
    explainer = scripted(Scripted(LIKES, joint=False))
    explainer.attribute(PROMPT, "Paris", method="ablation")
    assert len(rows(explainer)) == 4


def test_spellings_with_the_same_tokens_are_the_same() -> None:
    explainer = scripted(Scripted(LIKES))
    explainer.session.tokenizer = KINDS["word ends"]()
    explainer.session.info = ap.SessionInfo("echo", "cpu", "float64", 512, 2**20)
    explainer.attribute("The capital of France is", "Paris", method="ablation")
    assert {target for _, target in rows(explainer)} == {rows(explainer)[0][1]}


def test_refining_keeps_the_question_and_does_not_ask_again(explainer: ap.Explainer) -> None:
    rough = explainer.attribute(f"{PROMPT} so far from here it is", "Paris", method="permutation", budget=20)
    finer = explainer.refine(rough, budget=40)
    assert asked(finer) == asked(rough) != []
    assert [target for _, target in rows(explainer)].count(" Paris") == 1


def test_the_cache_answers_the_question(tmp_path: Path) -> None:
    for number in range(2):
        with scripted(Scripted(LIKES), cache=tmp_path / "scores.sqlite3") as explainer:
            assert asked(explainer.attribute(PROMPT, "Paris", method="ablation"))
            assert len(rows(explainer)) == (0 if number else 5)


def test_a_question_that_cannot_be_answered_costs_no_result() -> None:
    """The other spelling does not fit into the context."""
    explainer = scripted(Scripted(LIKES))
    explainer.session.info = ap.SessionInfo("echo", "cpu", "float64", len(PROMPT) + 5, 2**20)
    result = explainer.attribute(PROMPT, "Paris", method="ablation")
    assert not asked(result)
    assert len(result.values) == 3


@pytest.mark.demo
def test_a_few_long_prompts_are_not_read_once_more(smollm2: ap.Explainer) -> None:
    prompt = "The capital of France is"
    for filler, noted in ((30, True), (700, False)):
        halves = ap.Text("so " * filler + prompt, by=lambda text: [text[: -len(prompt)], prompt])
        assert bool(asked(smollm2.attribute(halves, "Paris", method="ablation"))) == noted


def test_the_space_of_a_real_model(smollm2: ap.Explainer) -> None:
    prompt = "The capital of France is"
    for given, target, scores in (
        (prompt, "Paris", "−0.26 instead of −7.57 nats."),
        (f"{prompt} ", " Paris", "−0.26 instead of −4.65 nats."),
        (f"{prompt} ", "Paris", "−0.26 instead of −7.23 nats."),
    ):
        (question,) = asked(smollm2.attribute(given, target, method="ablation"))
        assert question.startswith("Did you mean ' Paris'")
        assert question.endswith(scores)
    assert not asked(smollm2.attribute(prompt, " Paris", method="ablation"))
