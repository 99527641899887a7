"""The built-in inputs keep the contract, in every way of cutting and replacing."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion.testing import InputContract, chats
from apportion.testing.pictures import sample_pictures

PROMPT = "Dave lives in Palm Coast, FL. He is a lawyer.\n\nHis interests include"


class TestText(InputContract):
    name = "text"
    by = "words"
    baseline = None

    @pytest.fixture
    def prompt(self) -> ap.Text:
        return ap.Text(PROMPT, by=self.by, baseline=self.baseline)

    @pytest.fixture
    def full_text(self) -> str:
        return PROMPT

    def of_text(self, text: str) -> tuple[ap.Text, str]:
        return ap.Text(text, by=self.by, baseline=self.baseline), text


class TestSentences(TestText):
    by = "sentences"


class TestParagraphs(TestText):
    by = "paragraphs"


class TestTokens(TestText):
    by = "tokens"


class TestReplacedWords(TestText):
    baseline = "_"


class TestReplacedTokens(TestText):
    by = "tokens"
    baseline = 63


class TestTemplate(InputContract):
    name = "template"

    @pytest.fixture
    def prompt(self) -> ap.Template:
        return ap.Template(
            "{name} lives in {city}, {state}. {pronoun} likes",
            values={"name": "Dave", "city": "Palm Coast", "state": "FL", "pronoun": "He"},
            baselines={"name": "Sarah", "city": "Seattle", "pronoun": "She"},
            groups=[("name", "pronoun")],
        )

    @pytest.fixture
    def full_text(self) -> str:
        return "Dave lives in Palm Coast, FL. He likes"

    def of_text(self, text: str) -> tuple[ap.Template, str]:
        return ap.Template("{a}; {b}", {"a": text, "b": "zz"}), f"{text}; zz"


class TestTemplateWithDraws(TestTemplate):
    @pytest.fixture
    def prompt(self) -> ap.Template:
        return ap.Template(
            "{name} lives in {city}, {state}. {pronoun} likes",
            values={"name": "Dave", "city": "Palm Coast", "state": "FL", "pronoun": "He"},
            baselines={"name": ["Sarah", "Tom"], "city": ["Seattle", "Rome", "Oslo"], "state": "WA"},
            draws=4,
        )


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "I play golf. I live in Rome."},
    {"role": "assistant", "content": "Noted, thanks!"},
    {"role": "user", "content": "Where should we meet?\n\nSay one place."},
]
CLOCK, MAP = (
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("clock", "map")
)


def chatml(turns: list[dict[str, str]]) -> str:
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in turns) + "<|im_start|>assistant\n"


class TestChat(InputContract):
    name = "chat"
    writes_special_tokens = True
    by = "turns"
    baseline = None
    chat_template = chats.CHATML

    @pytest.fixture
    def prompt(self) -> ap.Chat:
        return ap.Chat(TALK, by=self.by, baseline=self.baseline, chat_template=self.chat_template)

    @pytest.fixture
    def full_text(self) -> str:
        return chatml(TALK)

    def of_text(self, text: str) -> tuple[ap.Chat, str]:
        talk = [{"role": "system", "content": text}, {"role": "user", "content": "zz"}]
        prompt = ap.Chat(talk, by=self.by, baseline=self.baseline, chat_template=chats.CHATML)
        return prompt, chatml(talk)


class TestChatByRoles(TestChat):
    by = "roles"


class TestChatBySentences(TestChat):
    by = "sentences"


class TestChatByWords(TestChat):
    by = "words"
    baseline = "_"


class TestChatWithStartToken(TestChat):
    by = "paragraphs"
    chat_template = chats.START_TOKEN

    @pytest.fixture
    def full_text(self) -> str:
        turns = "".join(f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in TALK)
        return f"<s>{turns}<|start_header_id|>assistant<|end_header_id|>\n\n"


class TestChatOfAlternatingRoles(TestChat):
    baseline = "…"
    chat_template = chats.ALTERNATING

    @pytest.fixture
    def full_text(self) -> str:
        system, user, assistant, last = (message["content"] for message in TALK)
        return f"<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {assistant} </s><s>[INST] {last} [/INST]"


class TestChatWithTools(TestChat):
    @pytest.fixture
    def prompt(self) -> ap.Chat:
        return ap.Chat(TALK[1:], tools=[CLOCK, MAP], chat_template=chats.TOOLS)

    @pytest.fixture
    def full_text(self) -> str:
        tools = f"{json.dumps(CLOCK)}\n{json.dumps(MAP)}\n"
        return f"<|im_start|>system\n# Tools\n{tools}<|im_end|>\n{chatml(TALK[1:])}<think></think>"


SOURCES = {"a.txt": "Dave left town. He went to Rome.", "b.txt": "Ann stays in Oslo."}


class TestDocuments(InputContract):
    name = "documents"
    by = "documents"
    baseline = None

    @pytest.fixture
    def prompt(self) -> ap.Documents:
        return ap.Documents("Where is everyone?", SOURCES, by=self.by, baseline=self.baseline)

    @pytest.fixture
    def full_text(self) -> str:
        return "Context: {}\n\n{}\n\nQuery: Where is everyone?".format(*SOURCES.values())

    def of_text(self, text: str) -> tuple[ap.Documents, str]:
        prompt = ap.Documents("q", [text, "zz"], by=self.by, baseline=self.baseline)
        return prompt, f"Context: {text}\n\nzz\n\nQuery: q"


class TestDocumentsBySentences(TestDocuments):
    by = "sentences"


class TestDocumentsByWords(TestDocuments):
    by = "words"
    baseline = "_"


class TestDocumentsInAChat(InputContract):
    name = "documents"
    writes_special_tokens = True

    @pytest.fixture
    def prompt(self) -> ap.Documents:
        return ap.Documents(
            "Where is everyone?",
            SOURCES,
            by="sentences",
            layout="{question}\n{context}",
            document="[{name}] {text}",
            separator="\n",
            as_chat=True,
            chat_template=chats.START_TOKEN,
        )

    @pytest.fixture
    def full_text(self) -> str:
        text = "Where is everyone?\n" + "\n".join(f"[{name}] {text}" for name, text in SOURCES.items())
        start = "<s><|start_header_id|>user<|end_header_id|>\n\n"
        return f"{start}{text}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


SEEN = "<image>" * 16
"""The placeholders of a picture, as the model reads them."""


class TestImageText(InputContract):
    name = "image_text"
    picture_family = "llava"
    options: dict[str, Any] = {"segments": "grid:2x3"}

    def make(self, text: object) -> ap.ImageText:
        return ap.ImageText(sample_pictures()["wide"], text, **self.options)

    @pytest.fixture
    def prompt(self) -> ap.ImageText:
        return self.make(PROMPT)

    @pytest.fixture
    def full_text(self) -> str:
        return SEEN + PROMPT

    @pytest.fixture
    def shown_text(self) -> str:
        return PROMPT

    def of_text(self, text: str) -> tuple[ap.ImageText, str]:
        return self.make(text), SEEN + text


class TestImageTextWithAWholeText(TestImageText):
    options = {"segments": "slic:5", "fill": "inpaint", "text_by": None}


class TestImageTextWithAWholePicture(TestImageText):
    options = {"segments": None, "text_by": "sentences"}


MASK = np.zeros((48, 96), bool)
MASK[10:30, 20:60] = True


class TestSeveralPictures(TestImageText):
    """Overlapping regions of one, and none of another."""

    options = {"segments": [{"left": (0, 0, 50, 48), "middle": MASK}, None, "grid:2"], "fill": "noise"}

    def make(self, text: object) -> ap.ImageText:
        pictures = sample_pictures()
        return ap.ImageText([pictures[name] for name in ("wide", "tall", "square")], text, **self.options)

    @pytest.fixture
    def full_text(self) -> str:
        return 3 * SEEN + PROMPT

    def of_text(self, text: str) -> tuple[ap.ImageText, str]:
        return self.make(text), 3 * SEEN + text


class TestImageTextOfATemplate(TestImageText):
    """Whose placeholder is in the middle."""

    @pytest.fixture
    def prompt(self) -> ap.ImageText:
        values, baselines = {"name": "Dave", "city": "Palm Coast"}, {"name": ["Sarah", "Tom"]}
        return self.make(ap.Template("{name} took <image> in {city}.", values, baselines, draws=2))

    @pytest.fixture
    def full_text(self) -> str:
        return f"Dave took {SEEN} in Palm Coast."

    @pytest.fixture
    def shown_text(self) -> str:
        return "Dave took <image> in Palm Coast."

    def of_text(self, text: str) -> None:
        return None


SEEING = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}\
{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class TestPictureInAChat(TestImageText):
    """The processor has a template: a string is a user's message, after the picture.

    As in transformers, it adds the token that begins a text to what the template has written, unless it is there.
    """

    def context(self, **chosen: Any) -> ap.AdaptContext:
        context = super().context(**chosen)
        processor = copy.copy(context.processor)
        processor.chat_template = SEEING
        return replace(context, processor=processor)

    @pytest.fixture
    def full_text(self) -> str:
        return chatml([{"role": "user", "content": SEEN + PROMPT}])

    def of_text(self, text: str) -> tuple[ap.ImageText, str]:
        return self.make(text), chatml([{"role": "user", "content": SEEN + text}])


class TestChatWithAPicture(TestPictureInAChat):
    def make(self, text: object) -> ap.ImageText:
        picture, last = {"type": "image"}, {"type": "text", "text": text}
        talk = [*TALK[:-1], {"role": "user", "content": [picture, last]}]
        return super().make(ap.Chat(talk, by="sentences"))

    @pytest.fixture
    def full_text(self) -> str:
        return self.of_text(PROMPT)[1]

    @pytest.fixture
    def shown_text(self) -> str:
        return chatml([*TALK[:-1], {"role": "user", "content": f"<image>{PROMPT}"}])

    def of_text(self, text: str) -> tuple[ap.ImageText, str]:
        return self.make(text), chatml([*TALK[:-1], {"role": "user", "content": SEEN + text}])
