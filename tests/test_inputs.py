"""Inputs: exact reassembly, absent means absent, and mistakes are refused with what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion as ap
from apportion.rendering.token_texts import token_texts
from apportion.testing import chats, tiny
from apportion.testing.echo import EchoBackend
from apportion_plugins.inputs.chat import ChatAdapter
from apportion_plugins.inputs.documents import DocumentsAdapter
from apportion_plugins.inputs.pieces import cut
from apportion_plugins.inputs.template import TemplateAdapter
from apportion_plugins.inputs.text import text_adapter

PROMPT = "Dave lives in Palm Coast, FL and is a lawyer. His interests include"
CONTEXT = ap.AdaptContext(tiny.tokenizer())

TEXTS = {
    "english": (PROMPT, 13),
    "chinese": ("我爱北京，你呢？", 6),
    "japanese": ("これはテスト。", 4),
    "arabic": ("مرحبا بالعالم، كيف حالك؟", 4),
    "emoji": ("I 🎉🎉 love 👩‍👩‍👧 it! 🙂", 6),
    "korean": ("안녕하세요 세계", 2),
    "quotes": ("« (a) » b", 4),
}


def decoded(item: object) -> str:
    assert isinstance(item, ap.ModelInput)
    return tiny.tokenizer().decode(list(item.ids))


def rows(adapter: ap.InputAdapter, *present: str) -> list[str]:
    mask = torch.tensor([[c == "1" for c in row] for row in present])
    return [decoded(item) for item in adapter.render(mask)]


@pytest.mark.parametrize("name", TEXTS)
def test_words_in_any_language(name: str) -> None:
    text, count = TEXTS[name]
    adapter = text_adapter(ap.Text(text), CONTEXT)
    assert len(adapter.features) == count
    assert rows(adapter, "1" * count) == [text]
    assert "".join(segment.text for segment in adapter.segments) == text


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(st.text(min_size=1), st.text(st.sampled_from("ab .:\n\r\t\v\x1c\x85\u2028你。"), min_size=1)).filter(
        str.strip
    ),
    by=st.sampled_from(["words", "sentences", "lines", "paragraphs"]),
)
def test_any_text_is_put_together_again(text: str, by: str) -> None:
    pieces = cut(text, by)
    assert all(piece == piece.strip() != "" for piece in pieces.pieces)
    assert pieces.join([True] * len(pieces.pieces), None) == text
    assert pieces.join([True] * len(pieces.pieces), "x") == text


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("sentences", ["Dr. Smith left.", "He said no!", "我来了。", "你呢？"]),
        ("paragraphs", ["Dr. Smith left. He said no!", "我来了。你呢？"]),
    ],
)
def test_sentences_and_paragraphs(by: str, expected: list[str]) -> None:
    adapter = text_adapter(ap.Text("Dr. Smith left. He said no!\n\n我来了。你呢？\n", by=by), CONTEXT)
    assert [feature.text for feature in adapter.features] == expected


LABELLED = "Review: great film. Really.\nLabel: positive\n\n  review: a waste\r\n  label:"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("lines", ["Review: great film. Really.", "Label: positive", "review: a waste", "label:"]),
        ("sentences", ["Review: great film.", "Really.", "Label: positive", "review: a waste", "label:"]),
        ("paragraphs", ["Review: great film. Really.\nLabel: positive", "review: a waste\r\n  label:"]),
    ],
)
def test_a_line_break_ends_lines_and_sentences(by: str, expected: list[str]) -> None:
    adapter = text_adapter(ap.Text(LABELLED, by=by), CONTEXT)
    assert [feature.text for feature in adapter.features] == expected
    assert rows(adapter, "1" * len(expected)) == [LABELLED]


def test_lines_are_pieces_of_messages_and_documents() -> None:
    documents = ap.Documents("Who?", [LABELLED, "One line."], by="lines")
    chat = ap.Chat([{"role": "user", "content": LABELLED}], by="lines", chat_template=chats.CHATML)
    expected = ["Review: great film. Really.", "Label: positive", "review: a waste", "label:"]
    assert [f.text for f in DocumentsAdapter(documents, CONTEXT).features] == [*expected, "One line."]
    assert [f.text for f in ChatAdapter(chat, CONTEXT).features] == expected
    assert [level.name for level in DocumentsAdapter(documents, CONTEXT).levels] == ["documents", "paragraphs"]


def test_absent_words_are_removed_with_the_space_before_them() -> None:
    adapter = text_adapter(ap.Text("  one two three\n"), CONTEXT)
    assert rows(adapter, "111", "011", "101", "110", "001", "000") == [
        "  one two three\n", "  two three\n", "  one three\n", "  one two\n", "  three\n", "\n",
    ]  # fmt: skip


def test_absent_words_can_be_replaced() -> None:
    adapter = text_adapter(ap.Text("one two three", baseline="_"), CONTEXT)
    assert rows(adapter, "111", "010", "000") == ["one two three", "_ two _", "_ _ _"]
    assert adapter.features[0].baseline == "_"


def test_repeated_words_get_numbered_names() -> None:
    adapter = text_adapter(ap.Text("the cat and the dog"), CONTEXT)
    assert [feature.name for feature in adapter.features] == ["the", "cat", "and", "the #2", "dog"]


def test_kept_features_are_always_present() -> None:
    for keep in (["lives", -1], [1, "three"], lambda text: text in ("lives", "three")):
        adapter = text_adapter(ap.Text("who lives in three", keep=keep), CONTEXT)
        assert [feature.text for feature in adapter.features] == ["who", "in"]
        assert rows(adapter, "11", "00") == ["who lives in three", "lives three"]
        assert [s.feature for s in adapter.segments if s.text.strip()] == [0, None, 1, None]


def test_a_function_may_cut_the_text() -> None:
    adapter = text_adapter(ap.Text("a-b - c!", by=lambda text: ["a", "b", "c"]), CONTEXT)
    assert rows(adapter, "111", "101", "011") == ["a-b - c!", "a - c!", "-b - c!"]
    with pytest.raises(ap.InputError, match="'z' does not occur in the text after 'a'"):
        text_adapter(ap.Text("a b", by=lambda text: ["a", "z"]), CONTEXT)
    with pytest.raises(ap.InputError, match="must return strings, not 3"):
        text_adapter(ap.Text("a b", by=lambda text: ["a", 3]), CONTEXT)
    with pytest.raises(ap.InputError, match="must return a list of strings, not None"):
        text_adapter(ap.Text("a b", by=lambda text: None), CONTEXT)
    with pytest.raises(ap.InputError, match="no pieces"):
        text_adapter(ap.Text("a b", by=lambda text: []), CONTEXT)


class Unprintable:
    def __str__(self) -> str:
        raise KeyError("no text")


def fails(*_: object, **__: object) -> bool:
    raise ZeroDivisionError("by\nzero")


def fails_late(text: str) -> Iterator[str]:
    yield text[:1]
    raise ZeroDivisionError("by zero")


ONE = {"x": "a"}
FAILING_FUNCTIONS = [
    (ap.Text("a b", by=fails), "'fails' given as by failed on the text 'a b': ZeroDivisionError: by zero"),
    (ap.Text("a b", by=fails_late), "'fails_late' given as by failed on the text 'a b': ZeroDivisionError: by zero"),
    (ap.Text("a b", keep=fails), "'fails' given as keep failed on the text 'a': ZeroDivisionError: by zero"),
    (ap.Text("a b", by="tokens", keep=fails), "'fails' given as keep failed on the text 'a'"),
    (ap.Text("a b", keep=partial(fails)), "'partial' given as keep failed on the text 'a'"),
    (ap.Template(fails, ONE), "'fails' given as template failed on {'x': 'a'}: ZeroDivisionError: by zero"),
    (ap.Template(fails, ["a", 2]), "'fails' given as template failed on {'0': 'a', '1': '2'}: ZeroDivisionError"),
    (ap.Template(lambda y: y, ONE), "given as template failed on {'x': 'a'}: TypeError: "),
    (
        ap.Template("{x}", {"x": Unprintable()}),
        "The Unprintable given for the slot 'x' cannot be shown as text: KeyError",
    ),
    (ap.Template(lambda x: "a", ONE, {"x": [Unprintable()]}), "The Unprintable given for the slot 'x' cannot be shown"),
    (ap.Documents("Who?", ["a b"], by=fails), "'fails' given as by failed on the text 'a b'"),
    (ap.Documents("Who?", ["a b"], keep=fails), "'fails' given as keep failed on the text 'a b'"),
    (ap.Chat([{"role": "user", "content": "a b"}], by=fails), "'fails' given as by failed on the text 'a b'"),
    (ap.Chat([{"role": "user", "content": "a b"}], keep=fails), "'fails' given as keep failed on the text 'a b'"),
]


@pytest.mark.parametrize(("prompt", "message"), FAILING_FUNCTIONS)
def test_functions_that_fail_are_named(prompt: object, message: str) -> None:
    if isinstance(prompt, ap.Chat):
        prompt = replace(prompt, chat_template=chats.CHATML)
    with ap.Explainer("echo://", backend=EchoBackend(), progress=False) as explainer:
        with pytest.raises(ap.InputError, match=re.escape(message)) as raised:
            explainer.attribute(prompt, " x")
        assert isinstance(raised.value.__cause__, ZeroDivisionError | TypeError | KeyError)
        assert explainer.session.asked == []


@pytest.mark.parametrize("answer", [None, "yes", 1, ["a"]])
def test_functions_for_what_is_kept_answer_true_or_false(answer: object) -> None:
    with pytest.raises(ap.InputError, match=r"'<lambda>' given as keep must return True or False, not "):
        text_adapter(ap.Text("a b", keep=lambda text: answer), CONTEXT)
    assert text_adapter(ap.Text("a b", keep=lambda text: np.bool_(text == "b")), CONTEXT).features[0].name == "a"


def test_errors_of_apportion_in_functions_stay_as_they_are() -> None:
    def refuses(text: str) -> list[str]:
        raise ap.InputError("not this text")

    with pytest.raises(ap.InputError, match="^not this text$"):
        text_adapter(ap.Text("a b", by=refuses), CONTEXT)


def with_start_token() -> ap.AdaptContext:
    """A tokenizer that begins every prompt with <s>."""
    import copy

    from tokenizers import processors

    tokenizer = copy.deepcopy(tiny.tokenizer())
    start = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([start])
    return ap.AdaptContext(tokenizer)


def test_tokens_are_removed_or_replaced_and_special_tokens_stay() -> None:
    context = with_start_token()
    start = context.tokenizer.bos_token_id
    adapter = text_adapter(ap.Text("abc", by="tokens"), context)
    a, b, c = context.tokenizer("abc", add_special_tokens=False)["input_ids"]
    assert [feature.text for feature in adapter.features] == ["a", "b", "c"]
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    assert [item.ids for item in adapter.render(mask)] == [(start, a, b, c), (start, a, c), (start,)]
    replaced = text_adapter(ap.Text("abc", by="tokens", baseline=7), context)
    assert [item.ids for item in replaced.render(mask[1:])] == [(start, a, 7, c), (start, 7, 7, 7)]
    by_text = text_adapter(ap.Text("abc", by="tokens", baseline="ab"), context)
    assert [item.ids for item in by_text.render(mask[1:2])] == [(start, a, a, b, c)]
    with pytest.raises(ap.InputError, match=r"baseline=999 is not a valid token id: this tokenizer has \d+ tokens"):
        text_adapter(ap.Text("abc", by="tokens", baseline=999), context)


def test_tokens_are_readable() -> None:
    """One byte a token: characters of several tokens are shown whole and numbered, spaces stay."""
    ids = tiny.tokenizer()("a é🙂 中")["input_ids"]
    assert token_texts(tiny.tokenizer(), ids) == (
        "a", " ", "é₁", "é₂", "🙂₁", "🙂₂", "🙂₃", "🙂₄", " ", "中₁", "中₂", "中₃",
    )  # fmt: skip
    cut_short = token_texts(tiny.tokenizer(), ids[:3])
    assert len(cut_short) == 3
    assert "�" not in "".join(cut_short)


VALUES = {"name": "Dave", "city": "Palm Coast", "state": "FL"}
TEMPLATE = "{name} lives in {city}, {state}."


def test_template_slots_hold_values_or_baselines() -> None:
    adapter = TemplateAdapter(ap.Template(TEMPLATE, VALUES, {"name": "Sarah"}), CONTEXT)
    assert [feature.name for feature in adapter.features] == ["name", "city", "state"]
    assert rows(adapter, "111", "011", "100") == [
        "Dave lives in Palm Coast, FL.", "Sarah lives in Palm Coast, FL.", "Dave lives in , .",
    ]  # fmt: skip
    assert [(s.text, s.feature) for s in adapter.segments] == [
        ("Dave", 0), (" lives in ", None), ("Palm Coast", 1), (", ", None), ("FL", 2), (".", None),
    ]  # fmt: skip


def test_template_lists_functions_formats_and_literal_braces() -> None:
    by_position = TemplateAdapter(ap.Template("{} and {} {{x}}", ["a", "b"], ["c", ""]), CONTEXT)
    assert rows(by_position, "11", "01") == ["a and b {x}", "c and b {x}"]
    assert "".join(segment.text for segment in by_position.segments) == "a and b {x}"
    by_name = TemplateAdapter(ap.Template(lambda x, y: f"{x}{'!' if y else '?'}", {"x": "a", "y": "b"}), CONTEXT)
    assert rows(by_name, "11", "10", "01") == ["a!", "a?", "!"]
    numbers = TemplateAdapter(ap.Template("{n:>4} {s!r}", {"n": 7, "s": "q"}, {"n": 0, "s": "r"}), CONTEXT)
    assert rows(numbers, "11", "00") == ["   7 'q'", "   0 'r'"]
    with pytest.raises(ap.InputError, match="must return a str; it returned 3"):
        TemplateAdapter(ap.Template(lambda x: 3, {"x": "a"}), CONTEXT)
    with pytest.raises(ap.InputError, match="cannot be filled with"):
        TemplateAdapter(ap.Template("{n:d}", {"n": "seven"}), CONTEXT)


def test_groups_are_perturbed_together_and_get_one_score() -> None:
    adapter = TemplateAdapter(ap.Template(TEMPLATE, VALUES, groups=[("city", "state")]), CONTEXT)
    assert [feature.name for feature in adapter.features] == ["name", "city + state"]
    assert adapter.features[1].members == ("city", "state")
    assert rows(adapter, "10", "01") == ["Dave lives in , .", " lives in Palm Coast, FL."]
    assert [s.feature for s in adapter.segments] == [0, None, 1, None, 1, None]


def texts_of(item: object) -> list[str]:
    assert isinstance(item, ap.Alternatives)
    return [decoded(i) for i in item.inputs]


def test_alternative_baselines_use_the_same_draws_for_every_coalition() -> None:
    baselines = {"name": ["Sarah", "Mary"], ("city", "state"): [("Seattle", "WA"), ("Austin", "TX")]}
    adapter = TemplateAdapter(ap.Template(TEMPLATE, VALUES, baselines), CONTEXT)
    assert adapter.draws == 4
    none, only_name = adapter.render(torch.tensor([[False] * 3, [True, False, False]]))
    assert texts_of(none) == [
        f"{name} lives in {place}." for place in ("Seattle, WA", "Austin, TX") for name in ("Sarah", "Mary")
    ]
    assert texts_of(only_name) == [f"Dave lives in {place}." for place in ("Seattle, WA",) * 2 + ("Austin, TX",) * 2]
    assert adapter.notes == ("averaged over all 4 combinations of baselines",)
    assert adapter.features[0].baseline == "Sarah | Mary"


def test_many_alternatives_are_drawn_with_the_seed() -> None:
    baselines = {slot: [f"{slot}{i}" for i in range(5)] for slot in VALUES}

    def drawn(seed: int) -> list[str]:
        context = ap.AdaptContext(tiny.tokenizer(), seed)
        adapter = TemplateAdapter(ap.Template(TEMPLATE, VALUES, baselines, draws=8), context)
        assert adapter.notes == (f"averaged over 8 of 125 combinations of baselines, drawn with seed {seed}",)
        return texts_of(adapter.render(torch.zeros(1, 3, dtype=torch.bool))[0])

    assert len(set(drawn(1))) == 8
    assert drawn(1) == drawn(1) != drawn(2)


BAD_TEMPLATES = [
    (("{name} in {town}", VALUES), "placeholders 'town' have no value; values are given for 'name', 'city', 'state'"),
    (("{name} in {city}", VALUES), "Values are given for 'state', which the template does not use"),
    ((TEMPLATE, VALUES, {"nane": "x"}), "No slot is called 'nane'. Did you mean 'name'"),
    ((TEMPLATE, VALUES, {("city", "town"): [("a", "b")]}), "No slot is called 'town'"),
    ((TEMPLATE, VALUES, {("city", "state"): [("a",)]}), "must be a tuple of 2 values"),
    ((TEMPLATE, VALUES, {"city": "x", ("city", "state"): ("a", "b")}), "The slot 'city' has two baselines"),
    ((TEMPLATE, VALUES, {"name": []}), "list of baselines for 'name' must not be empty"),
    ((TEMPLATE, VALUES, ["x"]), "The list of baselines has 1 for 3 slots"),
    ((TEMPLATE, VALUES, "x"), "baselines='x' must be a dict or a list"),
    ((TEMPLATE, VALUES, None, [("name", "pronoun")]), "No slot is called 'pronoun'.*named in the group"),
    ((TEMPLATE, VALUES, None, [("name",), ("name", "city")]), "The slot 'name' is in two groups"),
    ((TEMPLATE, VALUES, None, ["name"]), "The group 'name' is a string"),
    (("{name", {"name": "x"}), "not a valid format string"),
    (("{name.upper}", {"name": "x"}), "not a plain slot name"),
    (("plain", {}), "needs at least one value"),
    (("{a}", "text"), "values='text' must be a dict or a list"),
    ((3, {"a": "b"}), "template=3 must be a format string or a function"),
    ((TEMPLATE, VALUES, None, (), 0), "draws=0 must be a whole number"),
    ((TEMPLATE, VALUES, None, (), True), "draws=True must be a whole number"),
    (("{a}", {"a": ["b"]}), r"The value \['b'\] of the slot 'a' is a list; give a string or a number"),
    (("{a}", {"a": None}), "is a NoneType; give a string or a number .an empty string for nothing"),
    (("{a}", {"a": "x"}, {"a": [("p", "q")]}), r"The baseline \('p', 'q'\) of the slot 'a' is a tuple"),
    (("{1} {0}", {0: "a", 1: "b"}), "Numbered slots need a list"),
    (("{a}", {"a": len}), "is a builtin_function_or_method; give a string or a number"),
    (("{a}", {"a": lambda: "x"}), "is a function; give a string or a number"),
    (("{a}", {"a": "x"}, {"a": [lambda: "x"]}), "is a function; give a string or a number"),
    (("{a}{b}", {"a": "x", "b": "y"}, {("a", "b"): [("p", None)]}), "The baseline None of the slot 'b' is a NoneType"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_TEMPLATES)
def test_bad_templates_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Template(*arguments)


BAD_TEXTS = [
    (("",), "The prompt must not be empty"),
    ((" \n",), "The prompt must not be empty"),
    ((3,), "Text takes a str, not int"),
    (("a", "wrods"), "No kind of feature is called 'wrods'. Did you mean 'words'"),
    (("a", 3), "3 is neither a kind of feature"),
    (("a", "words", 3), "baseline=3 is a token id, which requires by='tokens'"),
    (("a", "tokens", 1.5), "must be a string, a token id or None"),
    (("a", "words", None, "a"), r"write keep=\['a'\]"),
    (("a", "words", None, 0), r"write keep=\[0\]"),
    (("a", "words", None, 1.5), "keep=1.5 is neither a list"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_TEXTS)
def test_bad_texts_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Text(*arguments)


def test_bad_keep_is_refused() -> None:
    for keep, message in (
        (["livs"], "keep='livs' is not a feature of this prompt. Did you mean 'lives'"),
        ([9], "keep=9 is out of range; the prompt has 3 features"),
        (lambda text: True, "Every feature is kept"),
    ):
        with pytest.raises(ap.InputError, match=message):
            text_adapter(ap.Text("Dave lives here", keep=keep), CONTEXT)


def test_names_are_unique_whatever_the_texts_are() -> None:
    from apportion_plugins.inputs.naming import unique_names

    assert unique_names(["the", " cat", " the", "the #2", "the"]) == ["the", "cat", "the #2", "the #2 #2", "the #3"]


@pytest.mark.parametrize(("count", "shown"), [(30, "1" + 60 * "0"), (400, "about 10^800"), (2_500, "about 10^5000")])
def test_more_combinations_than_can_be_counted_are_drawn_from(count: int, shown: str) -> None:
    slots = [f"s{i}" for i in range(count)]
    template = ap.Template(
        " ".join(f"{{{slot}}}" for slot in slots),
        dict.fromkeys(slots, "x"),
        {slot: [str(i) for i in range(100)] for slot in slots},
        draws=3,
    )
    adapter = TemplateAdapter(template, CONTEXT)
    assert len(set(texts_of(adapter.render(torch.zeros(1, count, dtype=torch.bool))[0]))) == 3
    assert adapter.notes == (f"averaged over 3 of {shown} combinations of baselines, drawn with seed 0",)


# --- levels ---------------------------------------------------------------------------------------------------------

PAGE = "One. Two words here.\n\nThree, four. Five six.\n\nSeven"


@pytest.mark.parametrize(
    ("by", "keep", "expected"),
    [
        ("words", (), {"paragraphs": (0,) * 4 + (1,) * 4 + (2,), "sentences": (0, 1, 1, 1, 2, 2, 3, 3, 4)}),
        ("sentences", (), {"paragraphs": (0, 0, 1, 1, 2)}),
        ("paragraphs", (), {}),
        ("sentences", ("Two words here.", "Five six."), {}),
        ("words", ("Seven", "One.", "Five", "six."), {"paragraphs": (0, 0, 0, 1, 1)}),
        ("lines", (), {}),
        (lambda text: text.split(" "), (), {}),
        (
            lambda text: text.replace("\n", " ").split(),
            (),
            {"paragraphs": (0,) * 4 + (1,) * 4 + (2,), "sentences": ...},
        ),
    ],
)
def test_levels_of_a_text(by: object, keep: tuple[str, ...], expected: dict[str, object]) -> None:
    """Coarsest first; what is as fine as the features or as another level is left out, and so are kept pieces."""
    levels = {level.name: level for level in text_adapter(ap.Text(PAGE, by=by, keep=keep), CONTEXT).levels}
    assert list(levels) == list(expected)
    assert all(levels[name].groups == groups for name, groups in expected.items() if groups is not ...)


def test_lines_are_between_paragraphs_and_sentences() -> None:
    text = "A: one. Two.\nB: three\n\nA: four\nB: five. Six"
    of_words = {level.name: level.groups for level in text_adapter(ap.Text(text), CONTEXT).levels}
    assert of_words == {
        "paragraphs": (0,) * 5 + (1,) * 5,
        "lines": (0, 0, 0, 1, 1, 2, 2, 3, 3, 3),
        "sentences": (0, 0, 1, 2, 2, 3, 3, 4, 4, 5),
    }
    of_lines = text_adapter(ap.Text(text, by="lines"), CONTEXT)
    assert [(level.name, level.groups) for level in of_lines.levels] == [("paragraphs", (0, 0, 1, 1))]


def test_tokens_nest_by_where_they_start() -> None:
    adapter = text_adapter(ap.Text("ab c.\n\nd e", by="tokens"), with_start_token())
    assert [(level.name, level.groups, level.texts) for level in adapter.levels] == [
        ("paragraphs", (0,) * 5 + (1,) * 5, ("ab c.", "d e")),
        ("words", (0, 0, 1, 1, 1, 2, 2, 2, 3, 3), ("ab", "c.", "d", "e")),
    ]


def test_groups_are_called_by_one_short_line_each() -> None:
    long = "word " * 20
    adapter = text_adapter(ap.Text(f"{long}\nand on.\n\n{long}\nand more."), CONTEXT)
    paragraphs, _ = adapter.levels
    assert paragraphs.texts == (("word " * 20)[:59] + "…", ("word " * 20)[:59] + "… #2")


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.sampled_from("ab .,!?\n\u3002\u4f60"), min_size=1, max_size=60).filter(str.strip),
    by=st.sampled_from(["words", "sentences", "lines", "tokens"]),
)
def test_levels_of_any_text_nest(text: str, by: str) -> None:
    adapter = text_adapter(ap.Text(text, by=by), CONTEXT)
    outer = [0] * len(adapter.features)
    for level in adapter.levels:
        assert len(set(outer)) < len(set(level.groups)) == len(level.texts) < len(adapter.features)
        assert len(set(zip(level.groups, outer, strict=True))) == len(level.texts)
        outer = level.groups


def test_without_examples_few_shot_is_zero_shot() -> None:
    """The prompt of the page on few-shot examples, as it is written there."""
    page = (Path(__file__).parent.parent / "docs/how-to/few-shot.md").read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", page, flags=re.S)[1], namespace)
    adapter = TemplateAdapter(namespace["prompt"], CONTEXT)
    assert [feature.name for feature in adapter.features] == ["ok", "loved", "waste", "won't"]
    none, last, all_but_one = rows(adapter, "0000", "0001", "1011")
    assert none == namespace["QUESTION"]
    introduction = namespace["INTRODUCTION"]
    assert last == f"{introduction}'Won't recommend' -> Negative\n\n{none}"
    assert all_but_one.count(" -> ") == 3
    assert "\n\n\n" not in all_but_one
