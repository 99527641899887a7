"""Encoder–decoder models: an encoder reads the prompt, and a decoder the target after a start of its own."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizer

import apportion as ap
from apportion.benchmarking.floor import ModelShape
from apportion.protocols.backend import WHITE_BOX
from apportion.testing import reference, tiny
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.encoder_decoder import EncoderDecoder
from apportion_backends.torch.loading import open_model
from apportion_backends.triton.backend import TritonBackend
from forks import Forks
from reversal import HIDDEN, reversal_prompts
from small_tokenizers import KINDS

PROMPT, TARGET, OTHER = "one two three", "xyz", "ab"


def explain(model: PreTrainedModel, tokenizer: Any = None, **options: Any) -> ap.Explainer:
    return ap.Explainer((model, tokenizer or tiny.tokenizer()), progress=False, **options)


def own(family: str = "t5") -> PreTrainedModel:
    """A model that a test may change."""
    return copy.deepcopy(tiny.model(family))


def ids(text: str) -> list[int]:
    found: list[int] = tiny.tokenizer()(text)["input_ids"]
    return found


def log_prob(model: PreTrainedModel, prompt: str = PROMPT, target: str = TARGET) -> float:
    return float(reference.log_probs(model, ids(prompt), ids(target)).sum())


# --- which kind of model it is ---------------------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path: Path) -> Callable[[PreTrainedModel], Path]:
    def saved(model: PreTrainedModel) -> Path:
        model.save_pretrained(tmp_path)
        tiny.tokenizer().save_pretrained(tmp_path)
        return tmp_path

    return saved


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
def test_the_configuration_decides_how_a_folder_is_opened(family: str, save: Callable[..., Path]) -> None:
    model = tiny.model(family, torch.float32)
    with ap.Explainer(save(model), progress=False) as explainer:
        assert type(explainer.session.model) is type(model)
        assert not explainer.session.layout.joint
        assert not [note for note in explainer.session.info.notes if "random" in note or "leaves out" in note]
        assert explainer.attribute(PROMPT, TARGET, method="shapley").full_value == pytest.approx(
            log_prob(model), abs=1e-4
        )


def test_the_decoder_alone_continues_its_prompt(save: Callable[..., Path]) -> None:
    torch.manual_seed(0)
    decoder = tf.BartForCausalLM(tiny.config("bart")).eval()
    with ap.Explainer(save(decoder), progress=False) as explainer:
        assert type(explainer.session.model) is tf.BartForCausalLM
        assert explainer.session.layout.joint


BERT = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
WHISPER = {
    "vocab_size": 260, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "pad_token_id": 257,
    "bos_token_id": 256, "eos_token_id": 257, "decoder_start_token_id": 256, "suppress_tokens": [],
    "begin_suppress_tokens": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "as_object", "in_folder"),
    [
        (lambda: tf.T5EncoderModel(tiny.config("t5")), "T5EncoderModel does not give next-token logits.*encoder–dec",
         "holds a T5EncoderModel, which does not continue a text or write one"),
        (lambda: tf.T5Model(tiny.config("t5")), "T5Model has no output layer.*AutoModelForSeq2SeqLM", None),
        (lambda: tf.BartForSequenceClassification(tiny.config("bart")), "has no output layer", None),
        (lambda: tf.BertForMaskedLM(tf.BertConfig(**BERT)), "is not a causal language model", "is not a causal"),
        (lambda: tf.WhisperForConditionalGeneration(tf.WhisperConfig(**WHISPER)), "reads input_features, not text",
         "holds a WhisperForConditionalGeneration"),
    ],
    ids=["encoder", "without a head", "classifier", "masked", "speech"],
)  # fmt: skip
def test_models_that_write_no_text_are_refused(
    make: Callable[[], PreTrainedModel], as_object: str, in_folder: str | None, save: Callable[..., Path]
) -> None:
    model = make()
    with pytest.raises(ap.ModelError, match=as_object):
        explain(model)
    if in_folder is not None:  # the head of the others is their embedding, so that it is not missing
        with pytest.raises(ap.ModelError, match=in_folder):
            ap.Explainer(save(model), progress=False)


def test_a_refusal_is_one_sentence(save: Callable[..., Path], caplog: pytest.LogCaptureFixture, forks: Forks) -> None:
    """Warnings of transformers come with a model that is opened, but not with one that is refused."""
    folder = save(tf.BertForMaskedLM(tf.BertConfig(**BERT)))
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        tf.AutoModelForCausalLM.from_pretrained(folder)
        assert "standalone" in caplog.text
        caplog.clear()
        with pytest.raises(ap.ModelError, match="is not a causal"):
            ap.Explainer(folder, progress=False)
        assert not caplog.text
    finally:
        logger.removeHandler(caplog.handler)
    words = ["attribute", "a", "--target", "b", "--model", str(folder)]
    ended = forks.run("import sys\nfrom apportion.cli import main\nsys.exit(main(sys.argv[1:]))", *words)
    assert ended.returncode and ended.stderr.startswith("error: ") and "standalone" not in ended.stderr


def test_backends_for_causal_models_leave_them_to_others() -> None:
    with pytest.raises(ap.BackendError, match="Triton kernels are for causal models.*backend='torch'"):
        TritonBackend().load(tiny.spec("t5"))
    with pytest.raises(ap.BackendError, match="compile=True fuses the layers of causal models only"):
        TorchBackend().load(tiny.spec("t5"), compile=True)


# --- what the decoder begins with ------------------------------------------------------------------------------------


def starts(explainer: ap.Explainer) -> list[str]:
    result = explainer.attribute(PROMPT, TARGET, method="ablation")
    return [note for note in result.provenance.notes if "scored" in note]


def test_a_forced_first_token_comes_before_the_target() -> None:
    model = own("bart")
    with explain(model) as explainer:
        assert starts(explainer) == [
            "Targets are scored, and written by the model, after </s> <s>, because the generation config forces the "
            "latter (forced_bos_token_id)."
        ]
        before = explainer.attribute(PROMPT, TARGET, method="shapley").full_value
        model.generation_config.forced_bos_token_id = 100
        after = explainer.attribute(PROMPT, TARGET, method="shapley").full_value
        assert before == pytest.approx(log_prob(tiny.model("bart")), abs=1e-9)
        assert after == pytest.approx(log_prob(model), abs=1e-9)
        assert abs(before - after) > 0.01
        for forced in (256, 100):  # the inside follows, too
            model.generation_config.forced_bos_token_id = forced
            method = Ask(lambda inside: float(inside.values(inside.embeddings()[None])[0, 0].detach()))
            explainer.attribute(ap.Text(PROMPT, by="tokens"), TARGET, method=method)
            assert method.found == pytest.approx(log_prob(model), abs=1e-6)
        with pytest.raises(ap.InputError, match="forced_bos_token_id.*model.generation_config"):
            explainer.attribute(PROMPT, generate={"forced_bos_token_id": 3})


def test_the_cache_knows_what_the_decoder_begins_with(tmp_path: Path) -> None:
    model = own("bart")
    with explain(model, cache=tmp_path / "scores.sqlite3") as explainer:
        for forced in (256, 100, 256):
            model.generation_config.forced_bos_token_id = forced
            found = explainer.attribute(PROMPT, TARGET, method="shapley")
            assert found.full_value == pytest.approx(log_prob(model), abs=1e-9)
        assert found.provenance.evaluations == 0


def test_a_model_without_a_start_is_refused() -> None:
    model = own()
    model.generation_config.decoder_start_token_id = model.generation_config.bos_token_id = None
    model.config.decoder_start_token_id = model.config.bos_token_id = None
    with pytest.raises(ap.ModelError, match="Set decoder_start_token_id in its generation_config.json"):
        explain(model)


def test_positions_that_padding_decides() -> None:
    """As in M2M-100, whose token 1 is padding: embeddings of other tokens are read as these are, but not its own."""
    config = tiny.config("m2m_100")
    config.pad_token_id = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.M2M100ForConditionalGeneration(config).double().eval()
    (padding,) = (text for text in map(chr, range(33, 127)) if ids(text) == [1])
    method = Ask(lambda inside: float(inside.values(inside.embeddings()[None])[0, 0].detach()))
    with explain(model) as explainer:
        explainer.attribute(ap.Text(PROMPT, by="tokens"), TARGET, method=method)
        assert method.found == pytest.approx(log_prob(model), abs=1e-6)
        assert explainer.attribute(PROMPT, TARGET, method="saliency").values.all()
        for prompt, target in ((f"{padding}{PROMPT}", TARGET), (PROMPT, f"{padding}{TARGET}")):
            for name in ("saliency", "value_zeroing"):
                with pytest.raises(ap.CapabilityError, match=r"contains a padding token \(id 1\)"):
                    explainer.attribute(prompt, target, method=name)
        found = explainer.attribute(f"{padding}{PROMPT}", TARGET, method="shapley")
        assert found.full_value == pytest.approx(log_prob(model, f"{padding}{PROMPT}"), abs=1e-6)
        reliance = explainer.context_reliance(PROMPT, TARGET, context=f"a {padding} b")
        assert reliance.attribution.provenance.method == "shapley"


def test_unknown_texts_are_named() -> None:
    for family, make in (("t5", KINDS["wordpiece"]), ("llama", KINDS["wordpiece"])):
        with explain(tiny.model(family), make()) as explainer:
            notes = explainer.attribute("a 日本 b", "a 🙂", method="ablation").provenance.notes
            (prompt, target) = (note for note in notes if "does not know parts" in note)
            assert "of the prompt" in prompt and "'日" in prompt
            assert "of the target" in target and "'🙂'" in target
            notes = explainer.attribute("a b", "b", method="ablation").provenance.notes
            assert not any("does not know" in note for note in notes)


class TwoTongues(PreTrainedTokenizer):
    """One token per letter, with a vocabulary of its own for targets, as Marian's; and languages, as M2M-100's."""

    def __init__(self, *, tgt_lang: str | None = None) -> None:
        special = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "__en__": 4, "__de__": 5}
        letters = "abcdefghijklmnopqrstuvwxyz "
        self.encoder = special | {letter: 6 + i for i, letter in enumerate(letters)}
        self.target_encoder = special | {letter: 100 + i for i, letter in enumerate(letters)}
        self.decoder = {number: token for token, number in self.target_encoder.items()}
        self.separate_vocabs = True
        self.src_lang, self.tgt_lang = "en", tgt_lang
        self._current, self._language = self.encoder, "__en__"
        super().__init__(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")

    def _switch_to_input_mode(self) -> None:
        self._current, self._language = self.encoder, "__en__"

    def _switch_to_target_mode(self) -> None:
        self._current, self._language = self.target_encoder, {"de": "__de__", "en": "__en__"}[str(self.tgt_lang)]

    @property
    def vocab_size(self) -> int:
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.encoder)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self._current.get(token, 3)

    def _convert_id_to_token(self, index: int) -> str:
        return self.decoder.get(index, "<unk>")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        return [self._current[self._language], *token_ids_0, 1]


def test_targets_have_the_vocabulary_and_language_of_the_target() -> None:
    tokenizer, model = TwoTongues(tgt_lang="de"), own("marian")
    model.generation_config.decoder_start_token_id = 2
    with explain(model, tokenizer) as explainer:
        result = explainer.attribute(ap.Text("dog", by="tokens"), "hund", method="shapley")
        assert explainer.target_of(result) == (107, 120, 113, 103)
        assert "".join(result.target_tokens) == "hund"
        assert result.feature_names == ("d", "o", "g")
        assert starts(explainer) == [
            "Targets are scored, and written by the model, after <pad> __de__, because the tokenizer begins every "
            "target like this."
        ]
        with torch.no_grad():
            source, read = torch.tensor([[4, 9, 20, 12, 1]]), torch.tensor([[2, 5, 107, 120, 113]])
            logits = model(source, decoder_input_ids=read).logits[0, 1:].log_softmax(-1)
        expected = float(logits[torch.arange(4), torch.tensor([107, 120, 113, 103])].sum())
        assert result.full_value == pytest.approx(expected, abs=1e-9)
        tokenizer.tgt_lang = None
        (note,) = starts(explainer)
        assert "names no target language, so targets are scored right after <pad>" in note
    assert tokenizer("a", add_special_tokens=False)["input_ids"] == [6], "the tokenizer of the user has changed"


def test_texts_that_a_decoder_writes_are_encoded_as_targets() -> None:
    tokenizer = TwoTongues(tgt_lang="de")
    assert ap.AdaptContext(tokenizer, as_target=True).encode(["ab"]) == [(5, 100, 101)]
    assert ap.AdaptContext(tokenizer, closed=True).encode(["ab"]) == [(4, 6, 7, 1)]


# --- prompts and targets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ending() -> ap.Explainer:
    """A T5 whose tokenizer appends the end of a text."""
    torch.manual_seed(0)
    config = tf.T5Config(
        vocab_size=384, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    return explain(tf.T5ForConditionalGeneration(config).double().eval(), KINDS["unigram, end"]())


def test_the_end_of_the_prompt_belongs_to_no_feature(ending: ap.Explainer) -> None:
    session, tokenizer = ending.session, ending.session.tokenizer
    text = "The capital of France is"
    target = tokenizer("Paris", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(target) == ["▁Paris"]
    for prompt in (ap.Text(text), ap.Text(text, by="tokens")):
        result = ending.attribute(prompt, "Paris", method="shapley")
        assert len(result.feature_names) == 5
        for value, read in ((result.full_value, tokenizer(text)["input_ids"]), (result.base_value, [2])):
            assert value == pytest.approx(float(reference.log_probs(session.model, read, target).sum()), abs=1e-9)


@pytest.mark.parametrize(
    "prompt",
    [
        ap.Template("The {a} of {b}", values={"a": "capital", "b": "France"}, baselines={"b": ["Par", "is"]}),
        ap.Documents("is?", ["The capital", "Paris is"]),
        ap.Chat([{"role": "user", "content": "The capital"}, {"role": "user", "content": "of France"}]),
    ],
    ids=["template", "documents", "chat"],
)
def test_every_kind_of_prompt(prompt: object, ending: ap.Explainer) -> None:
    exact = ending.attribute(prompt, "Paris", method="shapley")
    assert exact.values.sum() == pytest.approx(exact.full_value - exact.base_value, abs=1e-9)
    many = ending.attribute_many([prompt, "The capital"], target="Paris", method="shapley")
    assert next(iter(many)).values == pytest.approx(exact.values, abs=1e-9)


def test_a_run_is_estimated_refined_evaluated_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    with explain(tiny.model("t5"), run_log=log) as explainer:
        assert explainer.estimate("a b c d e f", TARGET, method="shapley").evaluations == 64
        rough = explainer.attribute("a b c d e f", TARGET, method="kernel_shap", budget=20)
        assert explainer.refine(rough, budget=40).provenance.evaluations == 40
        assert "deletion" in explainer.evaluate(rough, metrics=["deletion"]).measurements
    assert log.read_text().count('"status": "ok"') >= 2


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
def test_the_model_writes_what_it_finds_likeliest(family: str) -> None:
    """Whatever its generation settings are: BART's end the text by force, and others demand a length."""
    model = own(family)
    model.generation_config.forced_eos_token_id = model.generation_config.eos_token_id
    model.generation_config.min_length = 20
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, generate={"max_new_tokens": 6}, method="ablation")
        written = explainer.target_of(result)
    logits = reference.logits(tiny.model(family), ids(PROMPT), written)
    assert logits.argmax(-1).tolist() == list(written)
    assert len(written) == 6 or written[-1] == 257


def test_each_half_has_a_limit_of_its_own() -> None:
    model = own("bart")  # 512 tokens, and the decoder begins with two
    with explain(model) as explainer:
        assert (explainer.session.info.context_length, explainer.session.info.longest_target) == (512, 511)
        explainer.attribute(ap.Text("a" * 512, by=lambda text: [text[:9], text[9:]]), "b" * 511, method="ablation")
        with pytest.raises(ap.InputError, match="513 tokens"):
            explainer.attribute("a" * 513, "b", features=lambda text: [text[:9], text[9:]])
        with pytest.raises(ap.InputError, match="A target of 512 tokens exceeds the 511 tokens that .* decoder reads"):
            explainer.attribute("ab", "b" * 512, features=lambda text: [text[:1], text[1:]])
    with explain(tiny.model("t5")) as relative:
        assert relative.session.info.context_length is None


def test_an_encoder_predicts_no_tokens_of_the_prompt() -> None:
    with explain(tiny.model("t5")) as explainer, pytest.raises(ap.CapabilityError, match="in an encoder"):
        explainer.attribute(ap.Text(PROMPT, by="tokens"), TARGET, method="reagent")


def test_causal_paths_refuse_models_that_read_apart(explainer: ap.Explainer) -> None:
    """As BART does not fail, but reads a prompt as the target too, and gives numbers that mean something else."""
    model, prompt = tiny.model("bart"), ap.Text(PROMPT, by="tokens")
    with pytest.raises(ap.InputError, match="replacement_model=BartForConditionalGeneration.*causal"):
        explainer.attribute(prompt, TARGET, method="reagent", replacement_model=model)
    with pytest.raises(ap.ModelError, match="encoder–decoder model, which does not continue its prompt"):
        open_model(tiny.spec("bart"))
    with pytest.raises(ap.ModelError, match="encoder–decoder model.*Benchmark a causal language model"):
        ModelShape.of(model)


# --- what is read ----------------------------------------------------------------------------------------------------


class Reading:
    """Counts what the halves of a model read, padding included."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sources = self.tokens = 0
        encode, decode = EncoderDecoder.encode, EncoderDecoder.decode

        def encoding(halves: EncoderDecoder, sources: Any) -> Tensor:
            self.sources += len(sources.ids)
            self.tokens += sources.ids.numel()
            return encode(halves, sources)

        def decoding(halves: EncoderDecoder, targets: Tensor, *arguments: Any) -> Tensor:
            self.tokens += targets.numel()
            return decode(halves, targets, *arguments)

        monkeypatch.setattr(EncoderDecoder, "encode", encoding)
        monkeypatch.setattr(EncoderDecoder, "decode", decoding)


@pytest.mark.parametrize("batch_tokens", [1024, 60])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"contrast": OTHER, "target_fn": "contrast_log_prob_diff"},
        {"contrast": OTHER, "target_fn": "contrast_logits_diff"},
        {"target_fn": "pcxmi"},
    ],
    ids=["target", "contrast", "logits of both", "reference"],
)
def test_each_prompt_is_encoded_once(
    options: dict[str, Any], batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apportion_backends.torch.model_session.CPU_BATCH_TOKENS", batch_tokens)
    with explain(tiny.model("t5")) as explainer:
        reading = Reading(monkeypatch)
        found = explainer.attribute(PROMPT, TARGET, method="shapley", **options)
    reference_tokens = 1 + len(TARGET) if "pcxmi" in options.values() else 0  # not counted, as it is no evaluation
    assert found.provenance.forwarded_tokens == reading.tokens - reference_tokens
    # With small batches, a border may lie between the targets of one prompt, or after the reference prompt.
    assert reading.sources == 8 if batch_tokens == 1024 else 8 <= reading.sources <= 11


def test_contrasts_are_those_of_single_rows() -> None:
    model = tiny.model("m2m_100")
    with explain(model) as explainer:
        found = explainer.attribute(
            PROMPT, TARGET, contrast=OTHER, target_fn="contrast_log_prob_diff", method="shapley"
        )
    assert found.full_value == pytest.approx(log_prob(model) - log_prob(model, target=OTHER), abs=1e-9)


class Altered(nn.Module):
    """An embedding whose output a subclass changes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class SeesPadding(Altered):
    """Hidden states depend on the length of the row."""

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.inner(given)
        return found * given.shape[1]


class SeesFuture(Altered):
    """Hidden states depend on the whole row."""

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.inner(given)
        return found + found.mean(1, keepdim=True)


def test_a_model_that_sees_padding_gets_rows_of_one_length() -> None:
    model = own()
    model.encoder.embed_tokens = SeesPadding(model.encoder.embed_tokens)
    with explain(model) as explainer:
        assert not explainer.session.layout.padding
        found = explainer.attribute(
            PROMPT, TARGET, contrast=OTHER, target_fn="contrast_log_prob_diff", method="shapley"
        )
        assert found.full_value == pytest.approx(log_prob(model) - log_prob(model, target=OTHER), abs=1e-9)
        assert any("rows of one length" in note for note in found.provenance.notes)


def test_a_decoder_that_sees_later_tokens_is_refused() -> None:
    model = own()
    model.decoder.embed_tokens = SeesFuture(model.decoder.embed_tokens)
    with pytest.raises(ap.ModelError, match="not an encoder with a causal decoder.*would see itself"):
        explain(model)


def test_code_of_a_user_counts_in_both_halves() -> None:
    model = own()
    with explain(model) as explainer:
        plain = explainer.attribute(PROMPT, TARGET, method="shapley")
        for half in (model.encoder, model.decoder):
            handle = half.block[0].register_forward_hook(lambda module, args, output: (output[0] * 1.5, *output[1:]))
            changed = explainer.attribute(PROMPT, TARGET, method="shapley")
            assert changed.full_value == pytest.approx(log_prob(model), abs=1e-9)
            assert abs(changed.full_value - plain.full_value) > 1e-3
            assert not explainer.session.layout.source_sharing
            handle.remove()
        assert explainer.attribute(PROMPT, TARGET, method="shapley").full_value == plain.full_value


def test_lora_adapters_count() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q", "v"], init_lora_weights=False, task_type="SEQ_2_SEQ_LM")
    model = peft.get_peft_model(own(), config)
    with explain(model) as explainer:
        found = explainer.attribute(PROMPT, TARGET, method="shapley").full_value
    assert found == pytest.approx(log_prob(model.get_base_model()), abs=1e-9)
    assert abs(found - log_prob(tiny.model("t5"))) > 1e-3


# --- the inside ------------------------------------------------------------------------------------------------------


class Ask:
    """A method that asks the inside something, and keeps the answer."""

    estimand, requires = "nothing", WHITE_BOX

    def __init__(self, ask: Callable[[ap.Inside], Any]) -> None:
        self.ask = ask
        self.found: Any = None

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        self.found = self.ask(game.inside())
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))


def asked(model: PreTrainedModel, ask: Callable[[ap.Inside], Any], **options: Any) -> Any:
    method = Ask(ask)
    with explain(model) as explainer:
        explainer.attribute(ap.Text(PROMPT, by="tokens"), TARGET, method=method, **options)
    return method.found


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
def test_gradients_reach_prompt_target_and_modules_of_both_halves(family: str) -> None:
    """Values are the prompt's, a target token has no effect on itself or earlier ones, and edits act in both halves."""
    encoder, decoder = (
        ("encoder.block.0", "decoder.block.1")
        if family == "t5"
        else ("model.encoder.layers.0", "model.decoder.layers.1")
    )

    def ask(inside: ap.Inside) -> Any:
        points, following = inside.embeddings()[None], inside.following()[None]
        whole = inside.gradients(points, following=following)
        modules = inside.module_gradients(points, [encoder, decoder])
        halved = ap.Edits(outputs={encoder: lambda module, read, output: 0.5 * output})
        return inside, whole, modules, inside.values(points, edits=halved)

    model = tiny.model(family)
    inside, whole, modules, halved = asked(model, ask)
    assert not inside.joint
    assert inside.fixed == 0
    assert float(whole.values[0, 0]) == pytest.approx(log_prob(model), abs=1e-6)
    assert float(halved[0, 0].detach()) != pytest.approx(log_prob(model), abs=1e-3)
    assert whole.prompt.shape == (4, 1, len(PROMPT), 32)
    assert whole.generated.shape == (4, 1, 2, 32)
    reach = whole.generated.abs().sum(-1)[1:, 0] > 0  # token by token that is read
    assert reach.tolist() == [[False, False], [True, False], [True, True]]
    (slopes,) = modules.gradients
    assert slopes[encoder].shape[-2] == len(PROMPT)
    assert slopes[decoder].shape[-2] == len(TARGET) + (family == "bart")
    assert all(float(slope.abs().max()) > 0 for slope in slopes.values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
def test_attention_is_that_of_the_model(family: str, attention: str) -> None:
    model = own(family)
    model.set_attn_implementation(attention)
    found = asked(model, lambda inside: inside.trace(attentions=True, hidden=True))
    plain = own(family)
    plain.set_attn_implementation("eager")
    start = {"bart": [257, 256], "m2m_100": [257]}.get(family, [258])
    with torch.no_grad():
        expected = plain(
            torch.tensor([ids(PROMPT)]), decoder_input_ids=torch.tensor([[*start, *ids(TARGET)[:-1]]]),
            output_attentions=True, output_hidden_states=True,
        )  # fmt: skip
    for ours, theirs in (
        (found.encoder_attentions, expected.encoder_attentions),
        (found.attentions, expected.decoder_attentions),
        (found.cross_attentions, expected.cross_attentions),
        (found.encoder_hidden, expected.encoder_hidden_states),
        (found.hidden, expected.decoder_hidden_states),
    ):
        assert len(ours) == len(theirs)
        assert all(torch.allclose(one, other[0], atol=1e-6) for one, other in zip(ours, theirs, strict=True))


def test_the_inside_leaves_no_hooks_and_modes() -> None:
    model = own().train()
    asked(
        model, lambda inside: (inside.trace(attentions=True, hidden=True), inside.gradients(inside.embeddings()[None]))
    )
    assert all(module.training for module in model.modules())
    assert not [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert all(parameter.grad is None for parameter in model.parameters())


# --- known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ablation", {}),
        ("kernel_shap", {}),
        ("saliency", {}),
        ("integrated_gradients", {"baseline": HIDDEN, "steps": 20}),
        ("attention", {}),
        ("value_zeroing", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_letter_of_a_reversal_comes_from_the_right_one(
    method: str, options: dict[str, Any], reversing: ap.Explainer
) -> None:
    """The letters that the model writes are known, and so is the letter of the prompt that each is read from."""
    right = []
    for prompt in reversal_prompts(20):
        text = ap.Text(prompt, by="tokens", baseline=HIDDEN)
        result = reversing.attribute(text, prompt[::-1], method=method, **options)
        right += (np.argmax(result.token_values, axis=1) == np.arange(5)[::-1]).tolist()
    assert np.mean(right) >= 0.95


def test_the_reversing_model_writes_in_reverse(reversing: ap.Explainer) -> None:
    prompts = reversal_prompts(20)
    written = ["".join(reversing.attribute(prompt, method="ablation").target_tokens) for prompt in prompts]
    assert sum(text == f"{prompt[::-1]} </s>" for text, prompt in zip(written, prompts, strict=True)) >= 19
