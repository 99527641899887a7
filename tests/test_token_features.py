"""The feature of each token of a prompt: what methods that score tokens are summed by."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import apportion as ap
from apportion.game.token_features import features_of_tokens
from apportion.hooks.manager import load_plugins
from apportion.rendering.context import AdaptContext
from apportion.rendering.renderer import Renderer
from apportion.testing import tiny, tiny_explainer
from small_tokenizers import KINDS

PLUGINS = load_plugins()
VALUES = {"a": "capital", "b": "France", "c": "Paris"}
BASELINES = {"a": "the", "b": "of", "c": "is"}
CHAT = [{"role": "a", "content": "the capital is Paris"}, {"role": "b", "content": "the capital, of France, is"}]
TEXTS = ["The capital is Paris.", "France is the capital, the"]

PROMPTS = {
    "words": ap.Text("The capital of France is Paris, is the  capital"),
    "sentences": ap.Text("The capital is Paris. The capital of the. is", by="sentences"),
    "lines": ap.Text("The capital of\nFrance, Paris\nis", by=lambda text: text.splitlines(keepends=True)),
    "tokens": ap.Text("The capital of Paris is", by="tokens"),
    "template": ap.Template("The {a} of {b} is {c}.", VALUES, baselines=BASELINES),
    "groups": ap.Template("The {a} of {b} is {c}.", VALUES, baselines=BASELINES, groups=[("a", "c")]),
    "function": ap.Template(lambda a, b, c: f"The {b} is {c} the {a}, {c}", VALUES, baselines=BASELINES),
    "turns": ap.Chat(CHAT, keep=["b"]),
    "roles": ap.Chat(CHAT, by="roles", keep=["b"]),
    "words of turns": ap.Chat(CHAT, by="words"),
    "documents": ap.Documents("the capital of France is", TEXTS, layout="{context} {question}"),
    "words of documents": ap.Documents("the capital", TEXTS, by="words", layout="{question} {context}"),
    "documents in a chat": ap.Documents("the capital", TEXTS, as_chat=True, layout="{question} {context}"),
}
UNSPACED = {
    "words": ap.Text("北京 Paris 北京北", by="words"),
    "characters": ap.Text("北京北", by=list),
    "byte by byte": ap.Text("是 the 🙂 中国", by="words"),
}
# This template is written in letters that every one of the small tokenizers knows.
PLAIN_CHAT = "{% for m in messages %}{{ m['role'] }}, {{ m['content'] }}. {% endfor %}"


def adapted(prompt: object, tokenizer: PreTrainedTokenizerBase) -> tuple[ap.InputAdapter, tuple[int, ...]]:
    tokenizer.chat_template = PLAIN_CHAT
    context = AdaptContext(tokenizer)
    adapter = PLUGINS.call("apportion_adapt_input", prompt=prompt, context=context)
    return adapter, Renderer(adapter, context).full().ids


def squeezed(text: str) -> str:
    """Without white space, which belongs to its token's text; some tokenizers drop it, or the case of letters."""
    return "".join(text.split()).lower()


def check_texts(prompt: object, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokens of each feature decode to its text, and those of none to the rest of the prompt."""
    adapter, ids = adapted(prompt, tokenizer)
    owners = features_of_tokens(adapter, tokenizer, ids)
    assert len(owners) == len(ids)
    found: dict[int | None, str] = {}
    for owner, run in groupby(zip(owners, ids, strict=True), key=lambda pair: pair[0]):
        text = tokenizer.decode([token for _, token in run], skip_special_tokens=True)
        found[owner] = found.get(owner, "") + squeezed(text)
    for owner in (None, *range(len(adapter.features))):
        own = "".join(segment.text for segment in adapter.segments if segment.feature == owner)
        assert found.get(owner, "") == squeezed(own), (owner, adapter.segments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", PROMPTS)
def test_tokens_of_a_feature_are_its_text(case: str, kind: str) -> None:
    check_texts(PROMPTS[case], KINDS[kind]())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("byte") or "sentencepiece" in kind])
@pytest.mark.parametrize("case", UNSPACED)
def test_also_without_spaces_and_where_characters_are_several_tokens(case: str, kind: str) -> None:
    check_texts(UNSPACED[case], KINDS[kind]())


def glued(first: str, second: str) -> ap.Template:
    return ap.Template("The {a}{b}", {"a": first, "b": second}, baselines={"a": "x", "b": "y"})


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        (glued(" Par", "is"), "byte-level", "share their tokens with others: 'b'. A method that scores tokens would"),
        (ap.Text("京是", by=list), "wordpiece", "share their tokens with others: '是'"),
        (glued(" the", ""), "byte-level", "have no text in the prompt, or it cannot be found there: 'b'"),
        (ap.Template(lambda a: {"the": "The capital"}[a], {"a": "the"}), "byte-level", "no text in the prompt.*'a'"),
        (ap.Text("the? capital"), "slow", "provides no offsets, and its tokens do not decode to the text"),
    ],
)
def test_a_feature_without_a_token_is_refused_instead_of_scored_0(prompt: object, kind: str, message: str) -> None:
    tokenizer = KINDS[kind]()
    adapter, ids = adapted(prompt, tokenizer)
    with pytest.raises(ap.CapabilityError, match=message):
        features_of_tokens(adapter, tokenizer, ids)


class Broken(PreTrainedTokenizerBase):
    """Delegates to another tokenizer, but gives empty offsets, as some releases did for Llama 3."""

    is_fast = True

    def __init__(self, own: PreTrainedTokenizerBase) -> None:
        self.own = own

    def __call__(self, text: str, *, return_offsets_mapping: bool = False, **options: object) -> object:
        found = self.own(text, **options)
        return found | {"offset_mapping": [(0, 0)] * len(found["input_ids"])} if return_offsets_mapping else found

    def __getattr__(self, name: str) -> object:
        return getattr(self.own, name)

    def decode(self, *args: object, **options: object) -> object:
        return self.own.decode(*args, **options)


def test_wrong_offsets_are_not_believed() -> None:
    tokenizer = KINDS["byte-level"]()
    adapter, ids = adapted(PROMPTS["words"], tokenizer)
    expected = features_of_tokens(adapter, tokenizer, ids)
    assert features_of_tokens(adapter, Broken(tokenizer), ids) == expected


class Stated:
    """An adapter that states the features of its tokens."""

    features = (ap.Feature("x", "x"), ap.Feature("y", "y"))

    def __init__(self, *owners: object) -> None:
        self.feature_of_token = owners


@pytest.mark.parametrize(
    ("owners", "message"),
    [((0, 1), "features of 2 tokens.*has 3"), ((0, 1, 2), "states the feature 2"), ((0, "1", None), "feature '1'")],
)
def test_what_an_adapter_states_must_fit_its_prompt(owners: tuple[object, ...], message: str) -> None:
    with pytest.raises(ap.PluginError, match=message):
        features_of_tokens(Stated(*owners), tiny.tokenizer(), (5, 6, 7))
    assert features_of_tokens(Stated(0, None, 1), tiny.tokenizer(), (5, 6, 7)) == (0, None, 1)


class FirstToken:
    """Asks for the tokens, as white-box methods do."""

    estimand, requires = "position", frozenset({ap.Capability.GRADIENTS})

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        owners = game.inside().feature_of
        first = [float(owners.index(i)) for i in range(game.n_features)]
        return ap.Estimate(torch.tensor([first] * game.n_outputs, dtype=torch.float64).T)


def test_a_note_names_the_tokens_that_two_features_share() -> None:
    tokenizer = KINDS["byte-level"]()
    with ap.Explainer((tiny.model(), tokenizer), progress=False) as explainer:
        pair = ap.Template("The {a} {b}{c}", {"a": "capital", "b": "the Par", "c": "is Paris"}, baselines=BASELINES)
        shared = explainer.attribute(pair, " of", method=FirstToken())
        assert [note for note in shared.provenance.notes if "lies in two features" in note] == [
            "A token that lies in two features counts for the one that has more of its characters: ' Paris'."
        ]
        apart = explainer.attribute("The capital", " of", method=FirstToken())
    assert not any("two features" in note for note in apart.provenance.notes)
    with tiny_explainer() as explainer:
        assert explainer.attribute("ab c", " x", method=FirstToken()).values.tolist() == [0.0, 3.0]
