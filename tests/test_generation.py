"""A target that the model wrote: the result says so, and where it ends; and prompts that should have been chats."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

import apportion as ap
from apportion.errors import listing
from apportion.rendering.one_line import answers_take_a_line
from apportion.runs.generation import Generation, cut_at
from apportion.testing import chats, tiny
from scripted import Scripted, Session, ids_of, scripted
from small_tokenizers import KINDS

FEW_SHOT = "Review: great film.\nLabel: positive\nReview: a waste.\nLabel: negative\nReview: I loved it.\nLabel:"
END, START = tiny.tokenizer().eos_token_id, tiny.tokenizer().bos_token_id


def writes(text: str, *more: int) -> ap.Explainer:
    return scripted(Scripted(writes=(*ids_of(text), *more)))


def explained(explainer: ap.Explainer, prompt: object = "What now", **options: object) -> ap.Attribution:
    return explainer.attribute(prompt, method="ablation", **options)


def by_model(result: ap.Attribution) -> str:
    (note,) = [note for note in result.provenance.notes if note.startswith("The model wrote the target, ")]
    return note.removeprefix("The model wrote the target, ").removesuffix(".")


# --- where it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "target", "end", "note"),
    [
        (" ok", {"max_new_tokens": 2}, " o", "limit", "which was cut off after 2 tokens"),
        (" ok", {"max_new_tokens": 1}, " ", "limit", "which was cut off after 1 token"),
        (" ok", {"stop": "."}, " ok</s>", "model", "and ended it with </s>"),
        (" ok. Go", {"stop": "."}, " ok", "stop", "up to the stop text '.'"),
        (" ok. Go", {"stop": ["Go", ". "]}, " ok", "stop", "up to the stop text '. '"),
        (" a\nb", {"stop": "\n"}, " a", "stop", "up to the stop text '\\n'"),
        (" a\nb", {}, " a\nb</s>", "model", "and ended it with </s>"),
        (" ok", {"eos_token_id": [5]}, " ok</s>", "limit", "which was cut off after 4 tokens"),
    ],
)
def test_the_result_says_where_the_target_ends(
    text: str, options: dict[str, object], target: str, end: str, note: str
) -> None:
    result = explained(writes(text, END), generate=options)
    assert (result.target_text, result.provenance.target_end, by_model(result)) == (target, end, note)
    assert result.to_dict()["provenance"]["target_end"] == end
    assert note in html.unescape(result.plot("html"))


def test_other_control_tokens_end_nothing() -> None:
    """Such as padding: only the tokens that the generation stops at are an end."""
    result = explained(writes(" ok", START))
    assert result.provenance.target_end == "limit" and by_model(result) == "which was cut off after 4 tokens"


def test_a_given_target_was_not_written_by_the_model() -> None:
    result = writes(" ok").attribute("What now", " ok", method="ablation")
    assert result.provenance.target_end is None
    assert not any("wrote" in note for note in result.provenance.notes)


# --- one line for each answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [
        FEW_SHOT,
        "Q: one?\nA: yes\n\nQ: two?\nA:",
        "Q1: one?\nA1: yes\nQ2: two?\nA2: ",
        "sea otter => loutre de mer\ncheese => fromage\nbread =>",
        "Translate.\n'no' -> nein\n'yes' -> ja\n'and' ->",
        "France: Paris\nItaly: Rome\nSpain:",
        "Label: positive\nLabel: neg",
    ],
)
def test_a_prompt_of_lines_is_answered_by_a_line(prompt: str) -> None:
    explainer = writes(" yes\nReview: and on")
    result = explained(explainer, ap.Text(prompt, by="lines"))
    assert result.target_text == " yes"
    assert result.provenance.target_end == "stop"
    assert result.provenance.generation == {"stop": ["\n"]}
    assert by_model(result) == "up to the first line break, because answers in this prompt take one line each"
    assert isinstance(explainer.session, Session)
    assert explainer.session.written == len(" yes\n"), "nothing is written that is not needed"


@pytest.mark.parametrize(
    "prompt",
    [
        "The capital of France is",
        "It was 10:30.\nHe said:",
        "Context: some\n\nQuery: where?",
        "Query: where?\nAnswer:",
        "def f(x):\n    y = 1\n    return",
        f"{FEW_SHOT}\n",
        "Label:",
        ":\n:\n:",
    ],
)
def test_other_prompts_are_answered_at_length(prompt: str) -> None:
    assert not answers_take_a_line(prompt)
    result = explained(writes(" yes\nand on"), ap.Text(prompt, by="lines"), generate={"max_new_tokens": 6})
    assert result.target_text == " yes\na"


def test_the_user_may_let_it_go_on() -> None:
    for stop in (None, []):
        assert explained(writes(" yes\nno"), FEW_SHOT, generate={"stop": stop}).target_text == " yes\nno"


def test_an_answer_on_the_next_line_is_not_cut_to_nothing() -> None:
    result = explained(writes("\nyes"), FEW_SHOT)
    assert (result.target_text, result.provenance.target_end) == ("\nyes", "limit")
    assert "stop" not in result.provenance.generation, "it was given up"
    with pytest.raises(ap.InputError, match=r"begins with the stop text '\\n'.*another stop=, or give a target"):
        explained(writes("\nyes"), generate={"stop": "\n"})


@pytest.mark.parametrize("stop", [1, "", ["a", ""], [2], {"a": 1}])
def test_other_stop_texts_are_refused(stop: object) -> None:
    with pytest.raises(ap.InputError, match=r"stop=.* must be a text such as .* None to go on"):
        explained(writes("yes"), generate={"stop": stop})


def test_a_session_that_knows_no_stop_texts_is_cut_afterwards() -> None:
    explainer = writes(" yes\nno")
    generate = explainer.session.generate
    explainer.session.generate = lambda prompt, options, seed, room=None: generate(prompt, options, seed, room)
    assert explained(explainer, FEW_SHOT).target_text == " yes"


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece, always", "unigram, first", "slow"])
def test_the_token_with_the_stop_text_is_cut(kind: str) -> None:
    tokenizer = KINDS[kind]()
    context = ap.AdaptContext(tokenizer)
    (prompt,) = context.encode(["The capital is"], special_tokens=False)
    (whole,) = context.encode(["The capital is Paris the"], special_tokens=False)
    ids = whole[len(prompt) :]
    found = cut_at(["ris"], context, prompt, ids)
    assert found is not None
    assert found.token == " Paris"
    assert "".join(found.anew) == " Pa"
    why = Generation({}, ("ris",)).why(found)
    assert f"inside the token ' Paris', whose beginning was tokenised anew as {listing(map(repr, found.anew))}" in why
    before, both = (
        tokenizer.decode(list(part), clean_up_tokenization_spaces=False) for part in (prompt, prompt + found.ids)
    )
    assert both == f"{before} Pa"


@given(text=st.text(max_size=12), stop=st.text(min_size=1, max_size=3))
def test_cutting_keeps_what_is_before_the_stop_text(text: str, stop: str) -> None:
    context = ap.AdaptContext(tiny.tokenizer())
    found = cut_at([stop], context, ids_of("ab"), ids_of(text))
    assert (found is None) == (stop not in text)
    assert found is None or found.ids == ids_of(text[: text.index(stop)])


def test_a_tiny_model_stops_early() -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False)
    whole = explained(explainer, generate={"max_new_tokens": 12, "stop": None})
    stop = "<"
    where = whole.target_tokens.index(stop)
    assert 0 < where < 10
    prompt = ap.ModelInput(ids_of("What now"))
    written = explainer.session.generate(prompt, {"max_new_tokens": 12}, 0, None, [stop])
    assert written == explainer.target_of(whole)[: where + 1], "no token is written that is not needed"
    cut = explained(explainer, generate={"max_new_tokens": 12, "stop": stop})
    assert cut.target_tokens == whole.target_tokens[:where]


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({"max_new_tokens": 1.5}, r"max_new_tokens=1\.5 must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens=True must be a whole number"),
        ({"max_new_tokens": "5"}, "max_new_tokens='5' must be a whole number"),
        ({"max_new_tokens": 0}, "of at least 1"),
        ({1: 2}, "must have strings as keys; 1 is none"),
        ({"max_length": 9}, "no option 'max_length' here. Write max_new_tokens"),
        ({"input_ids": [1]}, "no option 'input_ids' here. The model reads the prompt"),
        ({"max_new_token": 3}, r"no option 'max_new_token'\. Did you mean 'max_new_tokens'\?$"),
        ({"temperature": 0.5}, "'temperature' of generate= has no effect without 'do_sample': True"),
        ({"length_penalty": 0.5}, "'length_penalty' of generate= has no effect without 'num_beams'"),
    ],
)
def test_options_without_effect_or_sense_are_refused(generate: dict[object, object], message: str) -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False)
    with pytest.raises(ap.InputError, match=message):
        explainer.attribute("a b", method="ablation", generate=generate)


# --- prompts that should have been chats -----------------------------------------------------------------------------


def hint(explainer: ap.Explainer, prompt: object, target: str | None = None) -> list[str]:
    result = explainer.attribute(prompt, target, method="ablation")
    return [note for note in result.provenance.notes if "chat template" in note]


def with_template(template: str | None) -> ap.Explainer:
    explainer = writes(" yes")
    explainer.session.tokenizer = tiny.tokenizer.__wrapped__()
    explainer.session.tokenizer.chat_template = template
    return explainer


QUESTION = ap.Documents("Where is it", ["Here.", "There."])
INSTRUCT = (
    "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


@pytest.mark.parametrize(
    ("prompt", "target", "advice"),
    [
        ("What now", None, "ap.Chat([{'role': 'user', 'content': …}])"),
        ("What now?", " go", "ap.Chat([{'role': 'user', 'content': …}])"),
        (QUESTION, " Here", "as_chat=True"),
        (ap.Template("What {x}?", {"x": "now"}), " go", "ap.Chat([{'role': 'user', 'content': …}])"),
    ],
)
def test_a_question_without_the_chat_template_is_noted(prompt: object, target: str | None, advice: str) -> None:
    (note,) = hint(with_template(INSTRUCT), prompt, target)
    assert f"; {advice} uses it" in note
    assert not hint(with_template(None), prompt, target), "a base model"


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("What now", " is"),
        (FEW_SHOT, None),
        ("### user:\nWhat now?\n### Response:\n", None),
        (ap.Chat([{"role": "user", "content": "What now?"}], "words"), None),
        (ap.Documents("Where is it", ["Here.", "There."], as_chat=True), None),
    ],
)
def test_other_prompts_are_what_they_are(prompt: object, target: str | None) -> None:
    assert not hint(with_template(INSTRUCT), prompt, target)


def test_a_template_that_fails_is_no_error() -> None:
    assert hint(with_template("{{ raise_exception('no') }}"), "What now?")


def test_control_tokens_show_that_the_template_was_used() -> None:
    explainer = with_template(chats.CHATML)
    explainer.session.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    explainer.session.info = ap.SessionInfo("echo", "cpu", "float64", 512, 2**20)
    assert hint(explainer, "What now?")
    assert not hint(explainer, "<|im_start|>system\nBe brief.<|im_end|>\nWhat now?")


# --- a real model ----------------------------------------------------------------------------------------------------


@pytest.mark.demo
def test_a_pasted_few_shot_prompt_explains_one_label(smollm2: ap.Explainer) -> None:
    result = explained(smollm2, ap.Text(FEW_SHOT, by="lines"))
    assert result.target_text == " negative"
    assert result.feature_names[1] == "Label: positive"
    assert not any("chat template" in note for note in result.provenance.notes)


@pytest.mark.demo
def test_a_real_chat_ends_by_itself(smollm2: ap.Explainer) -> None:
    chat = ap.Chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}], "sentences")
    result = explained(smollm2, chat)
    assert "Paris" in result.target_text
    assert by_model(result) == "and ended it with <|im_end|>"
    (note,) = hint(smollm2, "What is the capital of France?", " Paris")
    assert "ap.Chat(" in note
    assert not hint(smollm2, "The capital of France is", " Paris")
