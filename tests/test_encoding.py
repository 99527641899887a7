"""Texts tokenised in stretches have the tokens of the whole texts, with any tokenizer; where not sure, whole."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Sequence

import pytest
import regex
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import apportion as ap
from apportion.rendering.encoder import FEWEST, Encoder
from apportion.rendering.safe_splits import ALTERNATIVES, BORDER, META, borders
from apportion.testing import tiny
from apportion_plugins.inputs.documents import DocumentsAdapter
from apportion_plugins.inputs.template import TemplateAdapter

CORPUS = [
    "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include playing golf, hiking and cooking.",
    "It's 1,234 o'clock; we've 56 a  b   c.\n\nThe cat can't see the the the dog\tin the  house.\r\n"
    "  Ünï çödé 北京 中 a a a",
    "x = [1, 2]  # comment\nif x:\n    return 'they'll' + \"don't\"\n<b>tags</b> ▁ ▁▁ ½ ﬁ",
] * 4
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<s>", "</s>", "<unk>", "<|end|>"]
ByteLevel, Metaspace, Split = pre_tokenizers.ByteLevel, pre_tokenizers.Metaspace, pre_tokenizers.Split


def made(
    model: str = "bpe",
    words: Sequence[object] = (),
    normal: Sequence[object] = (),
    *,
    size: int = 400,
    added: Sequence[AddedToken] = (),
    around: object = None,
    **options: object,
) -> PreTrainedTokenizerFast:
    """A small tokenizer, trained on the corpus."""
    kinds = {
        "bpe": (models.BPE, trainers.BpeTrainer),
        "unigram": (models.Unigram, trainers.UnigramTrainer),
        "wordpiece": (models.WordPiece, trainers.WordPieceTrainer),
    }
    kind, trainer = kinds[model]
    core = Tokenizer(kind(**({"unk_token": "<unk>"} if model != "unigram" else {}), **options))
    if words:
        core.pre_tokenizer = pre_tokenizers.Sequence(list(words)) if len(words) > 1 else words[0]
    if normal:
        core.normalizer = normalizers.Sequence(list(normal))
    learns = {"vocab_size": size, "special_tokens": SPECIAL, "show_progress": False}
    if model == "unigram":
        learns["unk_token"] = "<unk>"
    if any(isinstance(step, ByteLevel) for step in words):
        learns["initial_alphabet"] = ByteLevel.alphabet()
    core.train_from_iterator(CORPUS, trainer(**learns))
    core.decoder = decoders.ByteLevel()
    core.post_processor = around or processors.ByteLevel(trim_offsets=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_tokens(list(added))
    return tokenizer


START = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
MERGED = [normalizers.Prepend(META), normalizers.Replace(" ", META)]

SURE: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt-2": lambda: made(words=[ByteLevel(add_prefix_space=False)]),
    "bytes": tiny.tokenizer,
    "prefix space": lambda: made(words=[ByteLevel(add_prefix_space=True)], around=START),
    "digits": lambda: made(words=[pre_tokenizers.Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "llama-3": lambda: made(
        words=[Split(Regex(LLAMA_3), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)],
        ignore_merges=True,
        around=processors.Sequence([processors.ByteLevel(trim_offsets=False), START]),
    ),
    "gpt-4o": lambda: made(
        words=[Split(Regex(GPT_4O), "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    ),
    "qwen": lambda: made(
        words=[
            Split(Regex(LLAMA_3.replace("{1,3}", "")), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ],
        normal=[normalizers.NFC()],
    ),
    "deepseek": lambda: made(
        words=[
            Split(Regex(r"\p{N}{1,3}"), "isolated"),
            Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
            Split(Regex(LLAMA_3), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "metaspace": lambda: made("bpe", [Metaspace(prepend_scheme="first")], around=START),
    "unigram": lambda: made("unigram", [Metaspace(prepend_scheme="always")], [normalizers.NFKC()]),
    "bert": lambda: made("wordpiece", [pre_tokenizers.BertPreTokenizer()], [normalizers.BertNormalizer()]),
    "words": lambda: made("wordpiece", [pre_tokenizers.Whitespace()], [normalizers.NFD(), normalizers.Lowercase()]),
    "llama-2": lambda: made("bpe", [Metaspace(split=True)], [normalizers.NFKC()], byte_fallback=True, fuse_unk=True),
    "added tokens": lambda: made(
        words=[ByteLevel(add_prefix_space=False)],
        added=[
            AddedToken("  ", normalized=False),
            AddedToken("\n\n", normalized=False),
            AddedToken(" Coast", normalized=False),
            AddedToken("<m>", lstrip=True, normalized=False),
        ],
    ),
}


def without_words(pre: object = None) -> PreTrainedTokenizerFast:
    """As Llama 2 and Gemma: byte-pair encoding of the whole text, with merges inside words only."""
    learned = made("bpe", [Metaspace(prepend_scheme="never")], byte_fallback=False)
    core = learned.backend_tokenizer
    core.pre_tokenizer = pre if pre is not None else pre_tokenizers.Sequence([])
    if pre is None:
        core.normalizer = normalizers.Sequence(MERGED)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


SURE["no words"] = without_words
SURE["no words, metaspace"] = lambda: without_words(Metaspace(prepend_scheme="first", split=False))

PARTS = st.sampled_from(
    [" ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\x1c", "\u200b", "\u0301", "a", "the",
     "Dave", "Coast", "'", "'s", "'re", "can't", ".", "...", "!", "1", "1234", "½", "ﬁ", "é", "e\u0301", "\u00a8",
     "\u00b4", "北京", "中", "かな", "ｶﾞ", "🙂", "👩\u200d👧", "ß", "İ", META, META * 2, "_", "<s>", "</s>", "<|end|>",
     "<m>", "<", ">", "#", "/", "\u0600", "\u0e33", "ﷺ", "a ", " b"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PARTS, PARTS, st.text(max_size=3)), max_size=14).map("".join)
TEXTS = TEXTS.map(lambda text: text.replace("{", "").replace("}", ""))
ENCODABLE = TEXTS.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


@functools.cache
def sure(name: str) -> PreTrainedTokenizerFast:
    return SURE[name]()


def whole(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], special: bool) -> list[tuple[int, ...]]:
    return [tuple(tokenizer(text, add_special_tokens=special)["input_ids"]) for text in texts]


@pytest.mark.parametrize("name", SURE)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(texts=st.lists(ENCODABLE, min_size=FEWEST, max_size=FEWEST + 4), special=st.booleans())
def test_stretches_have_the_tokens_of_the_whole_text(name: str, texts: list[str], special: bool) -> None:
    tokenizer = sure(name)
    assert borders(tokenizer) is not None, "it was known how this kind of tokenizer works"
    check(tokenizer, texts, special)


def check(tokenizer: PreTrainedTokenizerFast, texts: list[str], special: bool) -> None:
    with warnings.catch_warnings():
        # Falling back would hide what is wrong.
        warnings.simplefilter("error")
        found = Encoder(tokenizer)(texts, special_tokens=special)
    assert found == whole(tokenizer, texts, special)


@pytest.mark.parametrize("name", SURE)
def test_stretches_are_many(name: str) -> None:
    """Or nothing would be tested above."""
    border = borders(sure(name))
    assert border is not None
    assert border.split("Dave lives  in\n Palm Coast, FL") == ["Dave", "lives", " in\n Palm", "Coast,", "FL"]


@pytest.mark.demo
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(texts=st.lists(ENCODABLE, min_size=FEWEST, max_size=FEWEST), special=st.booleans())
def test_the_demo_model_too(smollm2: ap.Explainer, texts: list[str], special: bool) -> None:
    tokenizer = smollm2.session.tokenizer
    assert borders(tokenizer) is not None
    check(tokenizer, texts, special)


@pytest.mark.parametrize("name", ["gpt-2", "llama-3", "unigram", "bert", "no words"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(
    literals=st.lists(ENCODABLE, min_size=4, max_size=4),
    values=st.lists(ENCODABLE, min_size=4, max_size=4),
    baselines=st.lists(ENCODABLE, min_size=4, max_size=4),
)
def test_templates_of_anything(name: str, literals: list[str], values: list[str], baselines: list[str]) -> None:
    tokenizer = sure(name)
    template = "".join(f"{literal}{{}}" for literal in literals) + " end"
    mask = (torch.arange(16)[:, None] >> torch.arange(4)) & 1 == 1
    adapter = TemplateAdapter(ap.Template(template, values, baselines), ap.AdaptContext(tokenizer, closed=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [item.ids for item in adapter.render(mask)]
    shown = [[v if on else b for v, b, on in zip(values, baselines, row, strict=True)] for row in mask.tolist()]
    assert found == whole(tokenizer, [template.format(*row) for row in shown], True)


class Own(PreTrainedTokenizerFast):
    """Does something of its own with a text first."""

    def _encode_plus(self, text: object, **options: object) -> object:
        return super()._encode_plus(text, **options)


def crossing() -> PreTrainedTokenizerFast:
    """A vocabulary with a token of two words."""
    core = Tokenizer(
        models.BPE({"a": 0, META: 1, "b": 2, f"a{META}": 3, f"a{META}b": 4}, [("a", META), (f"a{META}", "b")])
    )
    core.normalizer = normalizers.Replace(" ", META)
    return PreTrainedTokenizerFast(tokenizer_object=core)


UNSURE: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "unigram without words": lambda: made("unigram", [], MERGED),
    "a token of two words": crossing,
    "an unknown expression": lambda: made(words=[Split(Regex(r"\w+ \w+|\s+"), "isolated"), ByteLevel(use_regex=False)]),
    "words that end with a space": lambda: made(words=[Split(Regex(r"\s+"), "merged_with_previous")]),
    "several spaces are one": lambda: made(
        words=[Metaspace()], normal=[normalizers.Replace(Regex(" {2,}"), " "), normalizers.NFC()]
    ),
    "marks go, spaces stay": lambda: made(words=[ByteLevel()], normal=[normalizers.StripAccents()]),
    "dropout": lambda: made(words=[ByteLevel()], dropout=0.5),
    "a token takes the space after it": lambda: made(words=[ByteLevel()], added=[AddedToken("<m>", rstrip=True)]),
    "a token that is a word": lambda: made(words=[ByteLevel()], added=[AddedToken("see", single_word=True)]),
    "a token of two words is added": lambda: made(words=[ByteLevel()], added=[AddedToken("Palm Coast")]),
    "an added token is normalised": lambda: made(
        words=[ByteLevel()], normal=[normalizers.NFKC()], added=[AddedToken("\u00b4", normalized=True)]
    ),
    "the text twice": lambda: made(
        words=[ByteLevel()], around=processors.TemplateProcessing(single="$A $A", special_tokens=[])
    ),
    "something of its own": lambda: Own(tokenizer_object=sure("gpt-2").backend_tokenizer),
}


@pytest.mark.parametrize("name", UNSURE)
def test_where_nothing_is_sure_texts_are_tokenised_whole(name: str) -> None:
    tokenizer = UNSURE[name]()
    assert borders(tokenizer) is None
    texts = ["Dave lives in Palm Coast", "I see  it", "a b", "<m> x"] * 4
    if name != "dropout":
        assert Encoder(tokenizer)(texts) == whole(tokenizer, texts, True)


def test_a_wrong_border_is_seen_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion.rendering.encoder.borders", lambda tokenizer: re.compile("v"))
    tokenizer = sure("llama-3")
    encoder = Encoder(tokenizer)
    texts = ["Dave lives here"] * FEWEST
    with pytest.warns(RuntimeWarning, match="'Dave lives here'.*Texts are now tokenised whole"):
        assert encoder(texts) == whole(tokenizer, texts, True)
    assert encoder(texts) == whole(tokenizer, texts, True)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_known_expressions_keep_borders(text: str) -> None:
    for alternative in ALTERNATIVES:
        assert not any(BORDER.search(match[0]) for match in regex.finditer(alternative, text)), alternative


def test_known_expressions_look_ahead_after_white_space_only() -> None:
    for alternative in ALTERNATIVES:
        outside = re.sub(r"\[(\\.|[^\]\\])+\]", "", alternative)
        rest = outside.replace("(?i:", "").replace(r"\s+(?!\S)", "")
        assert not re.search(r"\(\?|\\[bBAzZG]|[$^]", rest), alternative


def test_characters_are_what_the_proof_takes_them_for() -> None:
    """What is no space for Python is none for others; composing makes none of it, and composes nothing with a space."""
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    characters = [chr(code) for code in codes if not chr(code).isspace()]
    assert not regex.search(r"\s", "".join(characters))

    def normalised(form: str, texts: list[str]) -> list[str]:
        """All in one call: nothing composes with a line feed."""
        found = unicodedata.normalize(form, "\n".join(texts)).split("\n")
        assert len(found) == len(texts)
        return found

    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for character, seen in zip(characters, normalised(form, characters), strict=True):
            if seen != character:
                assert not seen[-1].isspace(), character
                assert seen[-1] != META, character
    assert all(seen[-1] == " " for seen in normalised("NFKC", [f"{character} " for character in characters]))


class Counting:
    """A tokenizer that counts calls and characters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.characters = 0
        original = PreTrainedTokenizerFast._encode_plus

        def counted(tokenizer: object, text: object, **options: object) -> object:
            self.calls += 1
            self.characters += len(text) if isinstance(text, str) else sum(map(len, text))
            return original(tokenizer, text, **options)

        monkeypatch.setattr(PreTrainedTokenizerFast, "_encode_plus", counted)


SLOTS = {f"s{i}": f"word{i}" for i in range(64)}
SENTENCES = [f"Sentence number {i} says something about the number {i}." for i in range(64)]


@pytest.mark.parametrize(
    ("adapter", "prompt"),
    [
        (TemplateAdapter, ap.Template(" and ".join(f"{{{slot}}}" for slot in SLOTS), SLOTS, dict.fromkeys(SLOTS, "x"))),
        (
            TemplateAdapter,
            ap.Template(lambda **s: " ".join(filter(None, s.values())), dict(zip(SLOTS, SENTENCES, strict=True))),
        ),
        (DocumentsAdapter, ap.Documents("Which number?", SENTENCES)),
    ],
    ids=["template", "function", "documents"],
)
def test_thousands_of_coalitions_are_tokenised_for_the_price_of_a_few(
    monkeypatch: pytest.MonkeyPatch, adapter: type, prompt: object
) -> None:
    made = adapter(prompt, ap.AdaptContext(sure("llama-3")))
    mask = torch.rand(2048, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    count = Counting(monkeypatch)
    made.render(mask)
    full = len("".join(segment.text for segment in made.segments))
    assert count.calls <= 40
    assert count.characters <= 20 * full, f"{count.characters} characters; the prompt has {full}"
    seen = count.calls
    made.render(mask[:1000])
    assert count.calls - seen <= 3, "nothing is new"
