"""A text target has the tokens that follow the prompt when both are read as one text, with tokenizers of every kind."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import apportion as ap
from apportion.cli import main
from apportion.testing import tiny
from apportion.testing.echo import EchoBackend
from small_tokenizers import KINDS, SIZE

PROMPT = "The capital of France is"
TARGETS = [" Paris", "Paris", "is", "\nThe", "北京", " 北", "🙂", " 🙂 is", "7", " 12", "</s>", " the capital, is</s>"]
APPENDED = {kind: 1 if kind.endswith("end") else 0 for kind in KINDS}


@functools.cache
def model() -> PreTrainedModel:
    config = tiny.config("llama")
    config.vocab_size = SIZE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    return made


@functools.cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    return KINDS[kind]()


@functools.cache
def explainer(kind: str) -> ap.Explainer:
    return ap.Explainer((model(), tokenizer(kind)), plugins=[GivenIdsPlugin()], progress=False)


def tokens(kind: str, text: str, special: bool = True) -> tuple[int, ...]:
    """The tokens of a whole text, without what the tokenizer appends."""
    ids = tokenizer(kind)(text, add_special_tokens=special)["input_ids"]
    return tuple(ids[: len(ids) - APPENDED[kind]] if special else ids)


def after(kind: str, prompt: str, target: str, special: bool = True) -> tuple[int, ...] | None:
    """The tokens after the prompt's in the whole text, if it begins with the prompt's."""
    before, whole = (tokens(kind, text, special) for text in (prompt, prompt + target))
    return whole[len(before) :] if whole[: len(before)] == before and len(whole) > len(before) else None


def log_prob(prompt: Sequence[int], target: Sequence[int]) -> float:
    """By one forward pass of one row."""
    with torch.inference_mode():
        logits = model()(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.double().log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)].sum())


def texts(kind: str, ids: Sequence[int]) -> str:
    return " ".join(tokenizer(kind).convert_ids_to_tokens(list(ids)))


def about(result: ap.Attribution, *words: str) -> list[str]:
    """The notes that contain all of these words."""
    return [note for note in result.provenance.notes if all(word in note for word in words)]


# --- the matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_what_follows_in_the_whole_text(kind: str) -> None:
    found = 0
    for target in TARGETS:
        expected = after(kind, PROMPT, target)
        if expected is None:
            continue
        found += 1
        result = explainer(kind).attribute(PROMPT, target, method="ablation")
        ids = explainer(kind).target_of(result)
        assert ids == expected, f"{target!r}: {texts(kind, ids)} instead of {texts(kind, expected)}"
        assert not about(result, "target is"), "nothing is special about it"
        assert result.target_text == target
        assert len(result.target_tokens) == len(ids)
        full = log_prob(tokens(kind, PROMPT), expected)
        assert result.full_value == pytest.approx(full, abs=2e-4)
        # The same tokens after every prompt.
        words = PROMPT.split()
        for i, value in enumerate(result.values):
            without = " ".join(words[:i] + words[i + 1 :])
            assert value == pytest.approx(full - log_prob(tokens(kind, without), expected), abs=4e-4)
    assert found >= (4 if kind == "word ends" else 9), "most targets begin with a token"


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, start"])
def test_bytes_have_the_tokens_that_they_have_alone(kind: str) -> None:
    for prompt in (PROMPT, f"{PROMPT}\n", f"{PROMPT} ", "Is it 北京?\n\n"):
        for target in (" Paris", "Paris", " 12", "\n\n", "🙂", "</s>"):
            if prompt[-1:].isspace() and target[:1].isspace():
                continue
            result = explainer(kind).attribute(prompt, target, method="ablation")
            assert explainer(kind).target_of(result) == tokens(kind, target, False), (prompt, target)


@pytest.mark.parametrize("kind", ["sentencepiece, always", "sentencepiece, prefix", "unigram, always", "slow"])
@pytest.mark.parametrize("target", [" Paris", "Paris", "\nThe"])
def test_nobody_adds_a_space(kind: str, target: str) -> None:
    result = explainer(kind).attribute(PROMPT, target, method="ablation")
    assert "".join(result.target_tokens) == target
    ids = tokens(kind, PROMPT) + explainer(kind).target_of(result)
    read = tokenizer(kind).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert read.strip() == PROMPT + target


# --- where no token begins at the target -----------------------------------------------------------------------------

ACROSS = [
    ("byte-level", "Paris is ", "Paris", "Par is", "' Paris' there.; .* scored as 'Par' 'is'; white space"),
    ("sentencepiece, always", "Paris is ", "Paris", "Par is", "' Paris' there.; .* scored as 'Par' 'is'; w"),
    ("sentencepiece, prefix", "Paris is ", "Paris is", "Par is ▁is", "' Paris' there.; .* as 'Par' 'is' ' is'"),
    ("unigram, first", "Paris is ", "Paris", "Paris", "' Paris' there.; .* scored as 'Paris'; white space"),
    ("unigram, end", "The Par", "is", "is", "' Paris' there.; the target is scored as 'is'.$"),
    ("sentencepiece, never", "The Par", "is the", "is ▁the", "' Paris' there.; the target is scored as 'is' ' the'.$"),
    ("byte-level, prefix space", "is\n", "\n", "Ċ", r"'\\n\\n' there.; the target is scored as '\\n'.$"),
    ("wordpiece", "The Par", "is", "##is", "' paris' there.; the target is scored as 'is'.$"),
    ("wordpiece", "The Par", "🙂", "<unk>", "' <unk>' there.; the target is scored as ' <unk>'.$"),
    ("slow", "Paris is ", "Paris", "Paris", "' Paris' there.; .* scored as 'Paris'; white space"),
    ("byte-level", "is\n\n", "the", "the", r"'\\n\\n' on its own, .*'\\n' '\\n' before .* after '\\n\\n'.$"),
    ("word ends", PROMPT, "Paris", "Par is</w>", r"'is</w>' on its own, .*'is' before .* so that the model reads '"),
]  # fmt: skip


def test_a_whole_text_that_is_one_unknown_word_has_no_tokens_to_show() -> None:
    words = tokenizers.Tokenizer(WordLevel({"<unk>": 0, "Paris": 1}, unk_token="<unk>"))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<unk>")
    with ap.Explainer((tiny.model(), made)) as explainer:
        (note,) = about(explainer.attribute("The capital is", " Paris", method="ablation"), "No token begins")
    assert "(the whole text has no tokens but the prompt's)" in note


@pytest.mark.parametrize(("kind", "prompt", "target", "expected", "note"), ACROSS)
def test_without_a_border_the_prompt_stays_and_the_result_says_so(
    kind: str, prompt: str, target: str, expected: str, note: str
) -> None:
    for given in (prompt, ap.Text(prompt, by="tokens"), ap.Template("{x}", {"x": prompt})):
        result = explainer(kind).attribute(given, target, method="ablation")
        ids = explainer(kind).target_of(result)
        assert after(kind, prompt, target) is None
        assert texts(kind, ids) == expected
        assert len(result.provenance.notes) == len(set(result.provenance.notes))
        (said,) = about(result, "target is")
        assert torch.tensor(result.full_value).item() == pytest.approx(log_prob(tokens(kind, prompt), ids), abs=2e-4)
        assert re.search(note, said), said


def test_unknown_text_may_reach_beyond_the_prompt() -> None:
    """One token for all unknown characters in a row: the whole text does not show where the target begins."""
    kind = "unigram, always"
    whole = tokens(kind, "is 🙂🙂🙂 is")
    assert whole[: len(tokens(kind, "is 🙂"))] == tokens(kind, "is 🙂")
    result = explainer(kind).attribute("is 🙂", "🙂🙂 is", method="ablation")
    assert texts(kind, explainer(kind).target_of(result)) == "<unk> ▁is"
    assert about(result, "No token begins where the target begins")
    apart = explainer(kind).attribute("is 🙂", " is", method="ablation")
    assert texts(kind, explainer(kind).target_of(apart)) == "▁is"
    assert not about(apart, "target is")


@pytest.mark.parametrize("kind", ["wordpiece", "word ends"])
@pytest.mark.parametrize("target", [" ", "\n"])
def test_a_target_that_adds_nothing_is_refused(kind: str, target: str) -> None:
    with pytest.raises(ap.InputError, match="is empty: it adds no tokens to this prompt"):
        explainer(kind).attribute(PROMPT, target)
    with pytest.raises(ap.InputError, match="The contrast '.*' is empty: it adds no tokens to this prompt"):
        explainer(kind).attribute(PROMPT, " Paris", contrast=target, target_fn="contrast_prob_diff")


# --- special tokens --------------------------------------------------------------------------------------------------

ENDS = [kind for kind in KINDS if APPENDED[kind]]


@pytest.mark.parametrize("kind", ENDS)
def test_no_end_of_text_between_prompt_and_target(kind: str) -> None:
    for prompt in (PROMPT, ap.Text(PROMPT, by="tokens"), ap.Documents("is?", ["The capital", "Paris is"])):
        read: list[ap.ModelInput] = []
        with ap.Explainer((model(), tokenizer(kind)), plugins=[Recording(read)], progress=False) as recording:
            result = recording.attribute(prompt, " Paris", method="ablation")
            written = recording.attribute(prompt, method="ablation", generate={"max_new_tokens": 2})
            options: dict[str, Any] = {"target_fn": "pcxmi", "target_options": {"reference": "The Paris"}}
            recording.attribute(prompt, " Paris", method="ablation", **options)
        assert len(read) > 6
        assert tokens(kind, "The Paris") in {one.ids for one in read}
        assert tokenizer(kind).eos_token_id not in {token for one in read for token in one.ids}
        for each in (result, written):
            (note,) = about(each, "appends")
            assert note == (
                "The tokenizer appends </s> to every text; prompts are read without it, so that the target continues "
                "them."
            )


def test_many_prompts_have_no_end_either() -> None:
    """As many as are tokenised in spans."""
    for kind in ENDS:
        sentences = [f"{PROMPT} {i}" for i in range(40)]
        found = ap.AdaptContext(tokenizer(kind)).encode(sentences)
        assert found == [tokens(kind, text) for text in sentences]
        closed = ap.AdaptContext(tokenizer(kind), closed=True).encode(sentences)
        assert closed == [(*ids, tokenizer(kind).eos_token_id) for ids in found]


def test_a_text_that_ends_with_the_end_keeps_it() -> None:
    kind = "byte-level, start and end"
    result = explainer(kind).attribute(f"{PROMPT}</s>", "</s>", method="ablation")
    assert texts(kind, explainer(kind).target_of(result)) == "</s>"
    assert result.full_value == pytest.approx(log_prob(tokens(kind, f"{PROMPT}</s>"), (2,)), abs=2e-4)


def test_a_decoder_of_its_own_reads_a_target_of_its_own() -> None:
    """An encoder's prompt keeps the end, and the target begins a text."""
    kind = "unigram, end"
    backend = EchoBackend(joint=False)
    with ap.Explainer("echo://", backend=backend, tokenizer=tokenizer(kind), progress=False) as apart:
        result = apart.attribute(PROMPT, "Paris", method="ablation")
        assert texts(kind, apart.target_of(result)) == "▁Paris"
        assert {row.prompt[-1] for rows in apart.session.asked for row in rows} == {2}
    assert not about(result, "appends")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ", start" in kind])
def test_two_start_tokens_are_said(kind: str) -> None:
    result = explainer(kind).attribute(f"<s>{PROMPT}", " Paris", method="ablation")
    assert about(result, "begins with <s> twice: the tokenizer adds it to a text that already has it")
    assert explainer(kind).target_of(result) == after(kind, f"<s>{PROMPT}", " Paris")
    assert not about(explainer(kind).attribute(PROMPT, " Paris", method="ablation"), "twice")


# --- all ways to ask -------------------------------------------------------------------------------------------------

USUAL = ["byte-level", "sentencepiece, always", "sentencepiece, prefix", "unigram, end", "wordpiece", "slow"]


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("target", [" Paris", "Paris", "</s>"])
def test_in_a_chat_it_follows_the_generation_prompt(kind: str, target: str) -> None:
    messages = [{"role": "user", "content": "is it"}, {"role": "user", "content": PROMPT}]
    chat = ap.Chat(messages, keep=(), baseline="")
    text = tokenizer(kind).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    result = explainer(kind).attribute(chat, target, method="ablation")
    assert explainer(kind).target_of(result) == after(kind, text, target, special=False)
    continued = ap.Chat([*messages, {"role": "assistant", "content": "The Paris"}], keep=(), baseline="")
    result = explainer(kind).attribute(continued, " is", method="ablation")
    assert explainer(kind).target_of(result) == after(kind, text + "The Paris", " is", special=False)


@pytest.mark.parametrize("kind", USUAL)
def test_every_kind_of_prompt(kind: str) -> None:
    question = ap.Documents("is it", ["the capital", "of France"])
    for prompt, text in (
        (ap.Text(PROMPT, by="tokens"), PROMPT),
        (ap.Text(PROMPT, by="tokens", keep=[-1]), PROMPT),
        (ap.Template("{a} of {b} is", {"a": "The capital", "b": "France"}, {"a": ["the", "is", "of"]}), PROMPT),
        (ap.Template(lambda a: f"{a} is", {"a": "The capital of France"}), PROMPT),
        (question, "Context: the capital\n\nof France\n\nQuery: is it"),
    ):
        for target in (" Paris", "Paris"):
            result = explainer(kind).attribute(prompt, target, method="ablation")
            assert explainer(kind).target_of(result) == after(kind, text, target), prompt


@pytest.mark.parametrize("kind", USUAL)
def test_contrasts_follow_the_prompt_too(kind: str) -> None:
    options: dict[str, Any] = {"target_fn": "contrast_prob_diff", "method": "ablation"}
    result = explainer(kind).attribute(PROMPT, " Paris", contrast="Paris", **options)
    target, contrast = (after(kind, PROMPT, text) for text in (" Paris", "Paris"))
    assert target is not None
    assert contrast is not None
    by_ids = explainer(kind).attribute(PROMPT, target, contrast=contrast, **options)
    assert result.values.tolist() == by_ids.values.tolist()
    difference = torch.tensor([log_prob(tokens(kind, PROMPT), ids) for ids in (target, contrast)]).exp()
    assert result.full_value == pytest.approx(float(difference[0] - difference[1]), abs=1e-5)
    with pytest.raises(ap.InputError, match="is equal to the target"):
        explainer(kind).attribute(PROMPT, " Paris", contrast=" Paris", **options)


@pytest.mark.parametrize(
    "kind", ["sentencepiece, always", "sentencepiece, prefix", "unigram, always", "slow", "byte-level"]
)
@pytest.mark.parametrize("baseline", [" is", "is", " the", " Paris"])
def test_baselines_of_tokens_stand_in_the_middle_of_a_text(kind: str, baseline: str) -> None:
    """A baseline that takes the place of a token has no mark of the beginning that nobody wrote."""
    prompt = ap.Text(PROMPT, by="tokens", baseline=baseline)
    found = explainer(kind).attribute(prompt, " Paris", method="ablation")
    shown = {feature.baseline for feature in found.features}
    assert shown == {baseline}, "what stands there reads like the baseline"


def test_notes_on_a_contrast_name_it() -> None:
    result = explainer("unigram, always").attribute(
        "Paris is ", " is", contrast="Paris", target_fn="contrast_prob_diff", method="ablation"
    )
    (note,) = about(result, "No token begins")
    assert note.startswith("No token begins where the contrast begins")


def test_ids_are_left_alone() -> None:
    for kind in USUAL:
        ids = tokens(kind, "is Paris", False)
        for given in (ids, list(ids), torch.tensor(ids)):
            result = explainer(kind).attribute("Paris is ", given, method="ablation")
            assert explainer(kind).target_of(result) == ids
            assert not about(result, "target is")


def test_many_runs_refined_estimated_evaluated_and_logged(tmp_path: Path) -> None:
    kind = "sentencepiece, prefix"
    expected = after(kind, PROMPT, "Paris is")
    assert expected is not None
    log = tmp_path / "runs.jsonl"
    with ap.Explainer((model(), tokenizer(kind)), run_log=log, cache=tmp_path / "cache", progress=False) as logged:
        one = logged.attribute(PROMPT, "Paris is", budget=12, seed=1)
        more = logged.refine(one, budget=32)
        many = [*logged.attribute_many([PROMPT, "Paris is "], target="Paris is", budget=12, seed=1)]
        for result in (one, more, many[0]):
            assert logged.target_of(result) == expected
        assert many[0].provenance.evaluations == 0, "the cache knows the same rows"
        assert about(many[1], "No token begins")
        assert logged.estimate(PROMPT, "Paris is").target_tokens == len(expected)
        assert logged.evaluate(more, ["deletion"]).target == "Paris is"
    lines = [json.loads(line)["request"]["target"] for line in log.read_text().splitlines()]
    assert {tuple(line["ids"]) for line in lines if line} >= {expected}
    assert [line["text"] for line in lines if line] == ["Paris is"] * len([line for line in lines if line])


def test_the_command_line_and_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, folder = "sentencepiece, prefix", tmp_path / "model"
    model().save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    expected = explainer(kind).attribute(PROMPT, "Paris", method="ablation")
    assert (
        main(["attribute", PROMPT, "--target", "Paris", "--model", str(folder), "--method", "ablation", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["values"] == pytest.approx(expected.values.tolist(), abs=1e-5)
    assert found["target_tokens"] == list(expected.target_tokens)
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": PROMPT, "target": "Paris"}) + "\n")
    out = tmp_path / "out"
    assert main(["run", str(data), "--out", str(out), "--model", str(folder), "--method", "ablation"]) == 0
    ((_, row),) = ap.load_results(out)
    assert row.values.tolist() == pytest.approx(expected.values.tolist(), abs=1e-5)


# --- prompts without a text ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenIds:
    """A prompt of token ids; one feature."""

    ids: tuple[int, ...]
    text: str = ""


class GivenIdsAdapter:
    def __init__(self, prompt: GivenIds) -> None:
        self.prompt = prompt
        self.features = (ap.Feature("all", "all"),)
        if prompt.text:
            self.segments = (ap.Segment(prompt.text, 0),)

    def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
        return [ap.ModelInput(self.prompt.ids if row[0] else self.prompt.ids[:1]) for row in mask.tolist()]


class GivenIdsPlugin:
    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object, context: ap.AdaptContext) -> GivenIdsAdapter | None:
        return GivenIdsAdapter(prompt) if isinstance(prompt, GivenIds) else None


class Recording:
    """Remembers the prompts of all batches."""

    def __init__(self, read: list[ap.ModelInput]) -> None:
        self.read = read

    @ap.hookimpl
    def apportion_score(self, session: object, batch: ap.ScoringBatch, request: object, read: object) -> None:
        self.read += [ap.ModelInput(row.prompt) for row in batch.rows]


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("target", [" Paris", "Paris"])
def test_ids_that_are_those_of_a_text(kind: str, target: str) -> None:
    for prompt in (GivenIds(tokens(kind, PROMPT)), GivenIds(tokens(kind, PROMPT), PROMPT)):
        result = explainer(kind).attribute(prompt, target, method="ablation")
        assert explainer(kind).target_of(result) == after(kind, PROMPT, target)
        assert not about(result, "target was")


def test_segments_have_the_white_space_that_tokens_lack() -> None:
    kind = "wordpiece"
    for text, expected in (("The Par ", "is"), ("The Par", "##is"), ("", "##is")):
        result = explainer(kind).attribute(GivenIds(tokens(kind, "The Par"), text), "is", method="ablation")
        assert texts(kind, explainer(kind).target_of(result)) == expected


@pytest.mark.parametrize("kind", ["sentencepiece, always", "sentencepiece, prefix", "slow", "byte-level"])
@pytest.mark.parametrize("target", [" Paris", "Paris"])
def test_ids_without_a_text(kind: str, target: str) -> None:
    """Letter by letter, which no text has; still nobody adds a space."""
    letters = tokenizer(kind).convert_tokens_to_ids(list("Paris"))
    prompt = GivenIds((*tokens(kind, PROMPT), *letters))
    result = explainer(kind).attribute(prompt, target, method="ablation")
    assert explainer(kind).target_of(result) == after(kind, f"{PROMPT} 7", target)
    assert about(result, "The text of the prompt is not known, so the target was tokenised apart from it, as '")
