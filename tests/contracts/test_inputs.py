"""The built-in inputs keep the contract, in every way of cutting and replacing."""

from __future__ import annotations

import pytest

import apportion as ap
from apportion.testing import InputContract

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
