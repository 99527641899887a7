"""Conversations and documents: exactly what the chat template writes, absent means absent, mistakes are refused."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import apportion as ap
from apportion.testing import chats, tiny
from apportion_plugins.inputs.chat import ChatAdapter
from apportion_plugins.inputs.documents import DocumentsAdapter

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "I play golf. I live in Rome."}
ANSWER = {"role": "assistant", "content": "Noted."}
LAST = {"role": "user", "content": "Where to?"}
TALK = [SYSTEM, ASK, ANSWER, LAST]
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
MAP = {"type": "function", "function": {"name": "map", "description": "a {plan}", "parameters": {"type": "object"}}}
START, END = "<|im_start|>", "<|im_end|>"


def tokenizer(template: object = chats.CHATML, *, adds_start: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer as chat models have it: it adds a start token, framing is special, and it has a template."""
    made = copy.deepcopy(tiny.tokenizer(adds_start=adds_start))
    made.add_special_tokens({"additional_special_tokens": [START, END]})
    made.chat_template = template
    return made


def chat(
    messages: object = TALK, template: object = chats.CHATML, **options: object
) -> tuple[ChatAdapter, PreTrainedTokenizerFast]:
    made = tokenizer(template)
    return ChatAdapter(ap.Chat(messages, **options), ap.AdaptContext(made)), made


def read(made: tuple[ap.InputAdapter, PreTrainedTokenizerFast], *present: str) -> list[str]:
    """What the model reads of coalitions such as ``"101"``."""
    adapter, its_tokenizer = made
    mask = torch.tensor([[c == "1" for c in row] for row in present])
    return [its_tokenizer.decode(list(item.ids)) for item in adapter.render(mask)]


def names(made: tuple[ap.InputAdapter, object]) -> list[str]:
    return [feature.name for feature in made[0].features]


def framed(*turns: dict[str, str]) -> str:
    return "".join(f"{START}{turn['role']}\n{turn['content']}{END}\n" for turn in turns) + f"{START}assistant\n"


TEMPLATES = {"chatml": chats.CHATML, "default": chats.DEFAULT_SYSTEM, "start": chats.START_TOKEN}
TEMPLATES |= {"alternating": chats.ALTERNATING, "tools": chats.TOOLS}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("by", ["turns", "roles", "sentences", "words", "paragraphs"])
def test_all_features_are_what_the_template_writes(template: str, by: str) -> None:
    """Token for token, so no start token is doubled; and segments show it."""
    baseline = "" if template == chats.ALTERNATING else None
    adapter, its_tokenizer = chat(template=template, by=by, baseline=baseline)
    (item,) = adapter.render(torch.ones(1, len(adapter.features), dtype=torch.bool))
    wanted = its_tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    assert list(item.ids) == wanted
    assert wanted.count(its_tokenizer.bos_token_id) == {chats.START_TOKEN: 1, chats.ALTERNATING: 2}.get(template, 0)
    assert "".join(s.text for s in adapter.segments) == its_tokenizer.decode(wanted)
    for i, feature in enumerate(adapter.features):
        assert [s.text for s in adapter.segments if s.feature == i] == feature.text.split(" … ")


def test_absent_turns_are_gone_with_their_framing_and_the_question_stays() -> None:
    made = chat()
    assert names(made) == ["system", "user", "assistant"]
    assert read(made, "111", "010", "000") == [framed(*TALK), framed(ASK, LAST), framed(LAST)]


def test_absent_turns_can_stay_with_another_content() -> None:
    made = chat(baseline="…", keep=["system"])
    assert names(made) == ["user", "assistant", "user #2"]
    other = [dict(turn, content="…") for turn in (ASK, ANSWER)]
    assert read(made, "001", "100") == [
        framed(SYSTEM, *other, LAST),
        framed(SYSTEM, ASK, other[1], dict(LAST, content="…")),
    ]
    assert made[0].features[0].baseline == "…"


def test_all_turns_of_a_role_are_one_feature() -> None:
    assert names(chat(by="roles")) == ["system", "user", "assistant"]
    made = chat([*TALK, ANSWER, LAST], by="roles", keep=["assistant", -1])
    assert names(made) == ["system", "user"]
    assert made[0].features[1] == ap.Feature("user", "I play golf. I live in Rome. … Where to?", ("user", "user #2"))
    assert read(made, "10") == [framed(SYSTEM, ANSWER, ANSWER, LAST)]


def test_pieces_of_contents_go_and_the_framing_stays() -> None:
    made = chat(by="sentences", keep=["system", "Where to?"])
    assert names(made) == ["I play golf.", "I live in Rome.", "Noted."]
    emptied = [dict(turn, content="") for turn in (ASK, ANSWER)]
    assert read(made, "010", "000") == [
        framed(SYSTEM, dict(ASK, content="I live in Rome."), emptied[1], LAST),
        framed(SYSTEM, *emptied, LAST),
    ]
    whole_turn = chat(by="words", keep=[ASK["content"], 0, lambda text: False][:2])
    assert names(whole_turn) == ["brief.", "Noted.", "Where", "to?"]
    assert names(chat(by=lambda text: text.split(" to"))) == [*(t["content"] for t in TALK[:3]), "Where", "?"]


def test_levels_of_a_conversation() -> None:
    adapter, _ = chat(by="words", keep=[SYSTEM["content"]])
    assert [(level.name, level.groups, level.texts) for level in adapter.levels] == [
        ("turns", (0,) * 7 + (1, 2, 2), ("user", "assistant", "user #2")),
        ("sentences", (0, 0, 0, 1, 1, 1, 1, 2, 3, 3), ("I play golf.", "I live in Rome.", "Noted.", "Where to?")),
    ]
    with_tools, _ = chat(TALK[1:], chats.TOOLS, by="sentences", tools=[CLOCK, MAP])
    assert [(level.name, level.groups) for level in with_tools.levels] == [("turns", (0, 0, 1, 2, 3, 4))]
    assert with_tools.levels[0].texts == ("user", "assistant", "user #2", "clock", "map")
    assert chat()[0].levels == ()


def clock(zone: str) -> str:
    """The time.

    Args:
        zone: where.
    """
    return zone


def test_each_tool_is_a_feature() -> None:
    made = chat([LAST], chats.TOOLS, keep=["clock"], tools=[CLOCK, MAP], baseline="")
    assert names(made) == ["user", "map"]
    made = chat([LAST], chats.TOOLS, tools=[CLOCK, MAP])
    assert names(made) == ["clock", "map"]
    both, one, none = read(made, "11", "01", "00")
    assert none == framed(LAST) + "<think></think>"
    assert one == both.replace(made[0].features[0].text + "\n", "")
    assert '"clock"' in made[0].features[0].text
    assert [s.feature for s in made[0].segments] == [None, 0, None, 1, None]
    assert names(chat([LAST], chats.TOOLS, tools=[clock, MAP])) == ["clock", "map"]
    (thinking,) = read(chat([ASK, LAST], chats.TOOLS, template_options={"thinking": True}), "0")
    assert thinking == framed(LAST)


def test_calls_of_tools_are_turns_too() -> None:
    call = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "Rome"}}}
    talk = [LAST, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "noon"}]
    made = chat(talk, chats.TOOLS, keep=["user"])
    assert [(f.name, f.text) for f in made[0].features] == [("assistant", "clock"), ("tool", "noon")]
    assert [s.text for s in made[0].segments if s.feature == 0] == ['{"name": "clock", "arguments": {"zone": "Rome"}}']
    emptied = chat(talk, chats.TOOLS, keep=["user"], baseline="")
    replies = [{"role": "assistant", "content": ""}, dict(talk[2])]
    assert read(emptied, "01") == [framed(LAST, *replies) + "<think></think>"]


def test_an_answer_that_has_begun_is_continued() -> None:
    begun = {"role": "assistant", "content": "To Rome"}
    made = chat([*TALK, begun], keep=["user"])
    assert names(made) == ["system", "assistant"], "the turn that is continued is always there"
    opened = framed(ASK, LAST) + "To Rome"
    assert read(made, "00", "11") == [opened, framed(SYSTEM, ASK, ANSWER, LAST) + "To Rome"]
    assert read(chat(by="words", messages=[LAST, begun]), "1101") == [framed(LAST) + "Rome"]
    closed = chat([*TALK, begun], add_generation_prompt=False)
    assert names(closed) == ["system", "user", "assistant", "assistant #2"]
    assert read(closed, "0001") == [framed(LAST, begun).removesuffix(f"{START}assistant\n")]


def test_parts_of_text() -> None:
    parts = [{"type": "text", "text": "I like"}, {"type": "text", "text": "golf."}]
    template = (
        "{% for m in messages %}{{ m['role'] }}:"
        "{% for part in m['content'] %}<{{ part['text'] }}>{% endfor %}{% endfor %}"
    )
    made = chat([{"role": "user", "content": parts}], template, by="words")
    assert names(made) == ["I", "like", "golf."]
    assert read(made, "111", "010", "110") == ["user:<I like><golf.>", "user:<like><>", "user:<I like><>"]
    turns = chat([{"role": "user", "content": parts}], template, keep=(), baseline="x")
    assert read(turns, "1", "0") == ["user:<I like><golf.>", "user:<x>"]
    with pytest.raises(ap.InputError, match=r"Some contents are lists of parts; this template may need plain text"):
        chat(
            [{"role": "user", "content": parts}],
            "{% for m in messages %}{{ m['content'] + '' }}{% endfor %}",
            by="words",
        )


def test_what_the_template_does_with_absent_turns_is_noted() -> None:
    adapter, _ = chat(template=chats.DEFAULT_SYSTEM)
    (note,) = adapter.notes
    assert note.startswith("without 'system' the chat template adds text of its own: 'You are a helpful AI")
    mute = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}\n{% endfor %}"
    assert chat([SYSTEM, ASK, LAST], mute)[0].notes == (
        "the chat template does not show 'system', so it has no effect",
    )
    assert chat()[0].notes == ()


def test_templates_that_look_into_contents_are_shown_all_the_same() -> None:
    picky = (
        "{% for m in messages %}{{ '!' if m['content'].startswith('Be') else '-' }}"
        "{{ m['content'] }}{{ m['content'] | length }}{% endfor %}"
    )
    made = chat(template=picky)
    assert read(made, "111") == ["!Be brief.9-I play golf. I live in Rome.28-Noted.6-Where to?9"]
    assert [s.text for s in made[0].segments if s.feature is not None] == [t["content"] for t in TALK[:3]]


def test_a_template_can_be_chosen_by_name() -> None:
    named = {"default": chats.CHATML, "plain": "{% for m in messages %}{{ m['content'] }};{% endfor %}"}
    assert read(chat([ASK, LAST], named), "1") == [framed(ASK, LAST)]
    assert read(chat([ASK, LAST], named, chat_template="plain"), "1") == [f"{ASK['content']};Where to?;"]
    with pytest.raises(ap.InputError, match=r"'rag' is not a chat template.*templates called default, plain"):
        chat(TALK, named, chat_template="rag")
    with pytest.raises(ap.InputError, match="multiple chat templates with no default"):
        chat(TALK, {"a": chats.CHATML, "b": chats.CHATML})


def test_control_tokens_in_contents_are_refused_unless_they_are_meant() -> None:
    sly = [SYSTEM, {"role": "user", "content": f"Hi{END} there <s>"}]
    with pytest.raises(ap.InputError, match=r"contain '<s>', '<\|im_end\|>', which the tokenizer reads as control"):
        chat(sly)
    adapter, its_tokenizer = chat(sly, allow_control_tokens=True)
    assert adapter.notes == ("contents contain control tokens, which are read as such: <s>, <|im_end|>",)
    (item,) = adapter.render(torch.ones(1, 1, dtype=torch.bool))
    assert its_tokenizer.convert_tokens_to_ids(END) in item.ids[:-30]
    for place in ({"tools": [{"name": "x", "description": END}]}, {"baseline": END}):
        with pytest.raises(ap.InputError, match="control tokens"):
            chat(TALK, chats.TOOLS, **place)
    with pytest.raises(ap.InputError, match="control tokens"):
        DocumentsAdapter(ap.Documents("q", [f"a {END}"], as_chat=True), ap.AdaptContext(tokenizer()))


REFUSED = [
    (
        TALK,
        chats.ALTERNATING,
        {},
        r"without 'user': Conversation roles must alternate.*With baseline=\"\" the turns stay",
    ),
    (TALK, chats.CHATML, {"keep": ()}, r"without 'system', 'user', 'assistant', 'user #2': no turn is left.*baseline"),
    ([ANSWER, ASK], chats.ALTERNATING, {}, "cannot write these messages: Conversation roles must alternate"),
    (
        [LAST],
        chats.CHATML,
        {},
        r"Every feature is kept .the user's last turn is kept unless keep= is given.*by='sent",
    ),
    (TALK, chats.CHATML, {"keep": [0, 1, 2, 3]}, "Every feature is kept; leave at least one"),
    (TALK, chats.CHATML, {"keep": ["sytem"]}, "keep='sytem' is not a feature of this prompt. Did you mean 'system'"),
    (TALK, chats.CHATML, {"keep": [4]}, "keep=4 is out of range; the prompt has 4 features"),
    (TALK, None, {}, "has no chat template, so it cannot format a conversation. Pass chat_template="),
    (TALK, "{% for m in messages %}", {}, "cannot write these messages: .*endfor"),
    (TALK, chats.CHATML, {"chat_template": "static"}, "is not a chat template: it does not use `messages`"),
    (TALK, chats.CHATML, {"tools": [CLOCK]}, "does not show tools, so they have no effect"),
    (TALK, chats.TOOLS, {"template_options": {"thinkin": 1}}, "does not use 'thinkin'; remove it from"),
    (TALK, chats.TOOLS, {"tools": [lambda x: x]}, "cannot be described as a tool"),
    ([dict(ASK, content=" "), LAST], chats.CHATML, {"by": "words", "keep": [-1, -2]}, "Every feature is kept"),
    ([dict(ASK, content="a \ud800")], chats.CHATML, {"by": "words"}, "invalid Unicode character at position 2"),
    ([dict(ASK, content="a \ud800"), LAST], chats.CHATML, {}, "invalid Unicode character"),
    (TALK, chats.TOOLS, {"tools": [{"name": "x \ud800"}]}, "invalid Unicode character"),
]


@pytest.mark.parametrize(("count", "by"), [(40, "turns"), (4000, "turns"), (40, "words"), (4000, "words")])
def test_each_turn_and_tool_is_left_out_on_trial(count: int, by: str) -> None:
    """Of a very long conversation only as many turns as keep the work in proportion to its length."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    real, written = tokenizer.apply_chat_template, list[int]()

    def counted(conversation: list[dict[str, str]], **options: Any) -> Any:
        written.append(len(conversation))
        return real(conversation, **options)

    tokenizer.apply_chat_template = counted  # type: ignore[method-assign]
    prompt = ap.Chat(
        [{"role": "user", "content": "a b"}] * count,
        by=by,
        keep=(),
        baseline="",
        tools=[{"name": "clock"}, {"name": "map"}],
        chat_template=chats.TOOLS,
    )
    assert ChatAdapter(prompt, ap.AdaptContext(tokenizer)).notes == ()
    texts = 1 + 1 + 1  # everything, with marks, and nothing
    left_out = 2 if by == "words" else min(count + 2, 62)
    assert len(written) == texts + left_out


@pytest.mark.parametrize(("messages", "template", "options", "message"), REFUSED)
def test_what_cannot_be_written_is_refused_before_anything_runs(
    messages: object, template: object, options: dict[str, object], message: str
) -> None:
    made = tokenizer(template)
    with pytest.raises(ap.InputError, match=message):
        adapter = ChatAdapter(ap.Chat(messages, **options), ap.AdaptContext(made))
        adapter.render(torch.ones(1, len(adapter.features), dtype=torch.bool))


BAD_CHATS = [
    (("Hi",), {}, "Chat takes a list of messages such as .* not a str: 'Hi'"),
    ((ASK,), {}, "Chat takes a list of messages such as .* not a dict"),
    (([],), {}, "The list of messages must not be empty"),
    ((["Hi"],), {}, "Message 0 must be a dict with 'role' and 'content', not 'Hi'"),
    (([{"rol": "user", "content": "a"}],), {}, "Message 0 has no 'role'. Its keys: 'rol', 'content'"),
    (([ASK, {"role": "user", "contents": "a"}],), {}, r"Message 1 .user. has no content"),
    (
        ([{"role": "user", "content": None}],),
        {},
        "has no content. Its keys: 'role', 'content'. Give a string, which may be empty",
    ),
    (([{"role": 3, "content": "a"}],), {}, "has the role 3. A role is a word"),
    (([{"role": "user<|im_end|>", "content": "a"}],), {}, r"has the role 'user<\|im_end\|>'. A role is a word"),
    (([{"role": "user", "content": 3}],), {}, r"Message 0 .user. must have a string as its content, not 3"),
    (([{"role": "user", "content": []}],), {}, r"must have a string as its content, not \[\]"),
    (([{"role": "user", "content": [{"type": "image", "url": "x"}]}],), {}, "has a part with a picture of its own"),
    (
        (TALK,),
        {"by": "tokens"},
        "A Chat is split by turns, roles, words, sentences, lines, paragraphs or a function, not by",
    ),
    ((TALK,), {"by": "turn"}, "No kind of feature is called 'turn'. Did you mean 'turns'"),
    ((TALK,), {"baseline": 3}, "baseline=3 must be a string, or None"),
    ((TALK,), {"keep": "user"}, r"write keep=\['user'\]"),
    ((TALK,), {"tools": CLOCK}, "tools=.* must be a list of JSON schemas or functions"),
    ((TALK,), {"tools": [{"type": "function"}]}, "has no name. A tool is a function, or a JSON schema"),
    ((TALK,), {"tools": [3]}, "The tool 3 has no name"),
    ((TALK,), {"tools": [CLOCK, clock]}, "Two tools are called 'clock'"),
    ((TALK,), {"chat_template": ""}, "chat_template='' must be a Jinja template"),
    ((TALK,), {"template_options": {"tools": []}}, "template_options cannot set 'tools': apportion sets it"),
    ((TALK,), {"template_options": ["a"]}, "must be a dict of variables"),
    ((TALK,), {"add_generation_prompt": 1}, "add_generation_prompt=1 must be True or False"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_CHATS)
def test_bad_chats_are_refused(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Chat(*arguments, **options)


# --- documents ------------------------------------------------------------------------------------------------------

SOURCES = {"a.txt": "Dave left. He is in Rome.", "b.txt": "Ann is in Oslo."}
QUESTION = "Where is Dave?"


def documents(**options: object) -> tuple[DocumentsAdapter, PreTrainedTokenizerFast]:
    made = tokenizer(adds_start=False)
    return DocumentsAdapter(
        ap.Documents(QUESTION, options.pop("documents", SOURCES), **options), ap.AdaptContext(made)
    ), made


def test_absent_documents_vanish_with_their_separator() -> None:
    made = documents()
    assert names(made) == ["a.txt", "b.txt"]
    assert read(made, "11", "01", "10", "00") == [
        "Context: Dave left. He is in Rome.\n\nAnn is in Oslo.\n\nQuery: Where is Dave?",
        "Context: Ann is in Oslo.\n\nQuery: Where is Dave?",
        "Context: Dave left. He is in Rome.\n\nQuery: Where is Dave?",
        "Context: \n\nQuery: Where is Dave?",
    ]
    replaced = documents(baseline="…", documents=list(SOURCES.values()))
    assert names(replaced) == ["document 1", "document 2"]
    assert read(replaced, "01") == ["Context: …\n\nAnn is in Oslo.\n\nQuery: Where is Dave?"]


def test_sentences_of_documents() -> None:
    """ContextCite's sources: sentences, with the question always there."""
    layout = {"layout": "{question}|{context}|", "document": "<{name}>{text}", "separator": ";"}
    made = documents(by="sentences", **layout)
    assert names(made) == ["Dave left.", "He is in Rome.", "Ann is in Oslo."]
    assert read(made, "111", "011", "001", "000") == [
        "Where is Dave?|<a.txt>Dave left. He is in Rome.;<b.txt>Ann is in Oslo.|",
        "Where is Dave?|<a.txt>He is in Rome.;<b.txt>Ann is in Oslo.|",
        "Where is Dave?|<b.txt>Ann is in Oslo.|",
        "Where is Dave?||",
    ]
    assert made[0].levels == (ap.Level("documents", (0, 0, 1), ("a.txt", "b.txt")),)
    assert [level.name for level in documents(by="words")[0].levels] == ["documents", "sentences"]
    assert names(documents(by="sentences", keep=["b.txt", 0])) == ["He is in Rome."]
    assert [s.text for s in made[0].segments if s.feature is not None] == names(made)


def test_documents_in_a_chat_are_what_the_template_writes() -> None:
    adapter, its_tokenizer = documents(by="sentences", as_chat=True)
    text = "Context: Dave left. He is in Rome.\n\nAnn is in Oslo.\n\nQuery: Where is Dave?"
    assert read((adapter, its_tokenizer), "111") == [framed({"role": "user", "content": text})]
    assert [s.text for s in adapter.segments if s.feature is not None] == [f.text for f in adapter.features]
    with pytest.raises(ap.InputError, match="has no chat template"):
        DocumentsAdapter(ap.Documents("q", ["a"], as_chat=True), ap.AdaptContext(tiny.tokenizer()))


BAD_DOCUMENTS = [
    ((" ", ["a"]), {}, "The question must be a string and must not be empty; it is ' '"),
    (("q", "a"), {}, "documents='a' must be a list of strings, or a dict"),
    (("q", []), {}, "documents must not be empty"),
    (("q", {}), {}, "documents must not be empty"),
    (("q", ["a", " "]), {}, "'document 2' must be a string and must not be empty; it is ' '. Omit it"),
    (("q", {"x": None}), {}, "'x' must be a string and must not be empty; it is None"),
    (("q", ["a"], "document"), {}, "No kind of feature is called 'document'. Did you mean 'documents'"),
    (("q", ["a"]), {"layout": "{context}"}, "layout='{context}' must contain the placeholder {question}"),
    (("q", ["a"]), {"layout": "{contxt} {question}"}, "placeholder {contxt}. Did you mean 'context'"),
    (("q", ["a"]), {"layout": "{context:>9} {question}"}, "has a placeholder with a format or conversion"),
    (("q", ["a"]), {"layout": 3}, "layout=3 must be a format string"),
    (("q", ["a"]), {"document": "{name}"}, "must contain the placeholder {text}"),
    (("q", ["a"]), {"separator": 3}, "separator=3 must be a string"),
    (("q", ["a"]), {"baseline": 3}, "baseline=3 must be a string, or None"),
    (("q", ["a"]), {"keep": 0}, r"write keep=\[0\]"),
    (("q", ["a"]), {"as_chat": 1}, "as_chat=1 must be True or False"),
    (("q", ["a"]), {"chat_template": chats.CHATML}, "apply to chats only; add as_chat=True"),
    (("q", ["a"]), {"chat": True, "as_chat": True}, "chat= is an alias of as_chat=; give only one of them"),
    (("q", ["a"]), {"template": "{context}"}, "layout='{context}' must contain the placeholder {question}"),
]


def test_documents_take_other_names_of_two_arguments() -> None:
    layout = "{question}: {context}"
    found = ap.Documents("q", ["a"], template=layout, chat=True)
    assert found == ap.Documents("q", ["a"], layout=layout, as_chat=True)
    assert (found.layout, found.as_chat) == (layout, True)
    assert dataclasses.replace(found, question="p").as_chat


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_DOCUMENTS)
def test_bad_documents_are_refused(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Documents(*arguments, **options)


@pytest.mark.parametrize("method", ["shapley", "ablation"])
def test_the_whole_pipeline(method: str) -> None:
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        prompt = ap.Chat(TALK, chat_template=chats.DEFAULT_SYSTEM)
        result = explainer.attribute(prompt, "Rome", method=method)
        assert result.feature_names == ("system", "user", "assistant")
        assert any("helpful AI" in note for note in result.provenance.notes)
        with pytest.raises(ap.InputError, match="of type Chat. It defines its own features"):
            explainer.attribute(prompt, "Rome", features="words")
