"""Models that read pictures: what is read of them, how often they are encoded, and errors that must not be silent."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

import apportion as ap
from apportion.models.processor import open_processor
from apportion.protocols.row import Media, Row
from apportion.rendering.picture_writer import PictureWriter, processed
from apportion.testing import tiny_pictures
from apportion.testing.reading_pictures import worst_difference
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.pictures.probe import probe_pictures
from apportion_backends.torch.pictures.token_types import TokenTypes
from apportion_backends.torch.pictures.tower import Features, Tower
from apportion_backends.triton.backend import TritonBackend

TOLERANCE = 1e-4
SEEN = 1e-3
"""An error that a test must see changes scores by at least this many nats."""


def opened(family: str, model: Any = None, processor: Any = None) -> Any:
    """A session of a tiny model, or of another model with its processor."""
    made = processor or tiny_pictures.processor(family)
    spec = ap.ModelSpec(family, made.tokenizer, made, objects=model or tiny_pictures.model(family))
    return TorchBackend().load(spec)


def explained(family: str, dtype: torch.dtype = torch.float32, **options: Any) -> ap.Explainer:
    """An explainer of a tiny model."""
    pair = (tiny_pictures.model(family, dtype), tiny_pictures.processor(family))
    return ap.Explainer(pair, backend="torch", progress=False, **options)


# --- errors that change numbers, but raise nothing --------------------------------------------------------------------


def _without_types(self: TokenTypes, ids: Any, rows: Any) -> dict[str, Any]:
    return {}


def _target_as_prompt(self: TokenTypes, ids: Any, rows: Sequence[Row]) -> dict[str, Any]:
    return TYPES(replace(self, of_target=0), ids, rows)


def _in_another_order(self: Tower, features: Sequence[Features]) -> dict[str, Any]:
    return ARGUMENTS(self, features[::-1])


def _of_the_first(self: Tower, features: Sequence[Features]) -> dict[str, Any]:
    return ARGUMENTS(self, [features[0]] * len(features))


def _upside_down(self: Tower, features: Sequence[Features]) -> dict[str, Any]:
    return ARGUMENTS(self, [replace(one, parts=tuple(part.flip(0) for part in one.parts)) for one in features])


def _without_depth(self: Tower, features: Sequence[Features]) -> dict[str, Any]:
    flat = [replace(one, deep=tuple(tuple(0 * part for part in layer) for layer in one.deep)) for one in features]
    return ARGUMENTS(self, flat)


TYPES, ARGUMENTS = TokenTypes.__call__, Tower.arguments

MUTANTS: list[tuple[str, str, type, str, Callable[..., Any]]] = [
    ("paligemma", "no types", TokenTypes, "__call__", _without_types),
    ("gemma3", "no types", TokenTypes, "__call__", _without_types),
    ("qwen2_5_vl", "no types", TokenTypes, "__call__", _without_types),
    ("paligemma", "target read in both directions", TokenTypes, "__call__", _target_as_prompt),
    ("llava", "features in another order", Tower, "arguments", _in_another_order),
    ("idefics3", "features in another order", Tower, "arguments", _in_another_order),
    ("internvl", "the features of another picture", Tower, "arguments", _of_the_first),
    ("qwen3_vl", "deep features left out", Tower, "arguments", _without_depth),
]


@pytest.mark.parametrize(
    ("family", "fault", "owner", "name", "mutant"), MUTANTS, ids=[f"{m[0]}: {m[1]}" for m in MUTANTS]
)
def test_silent_errors_change_the_scores_that_the_contract_checks(
    family: str, fault: str, owner: type, name: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(family)
    rows = [row for row in tiny_pictures.rows(family) if len(row.media) == 1][:2]
    assert worst_difference(session, family, rows) < TOLERANCE
    session.release()
    monkeypatch.setattr(owner, name, mutant)
    assert worst_difference(session, family, rows) > SEEN


def test_stale_positions_of_another_row_are_not_read() -> None:
    """Qwen2.5-VL keeps the positions of the row before on the model."""
    session, rows = opened("qwen2_5_vl"), tiny_pictures.rows("qwen2_5_vl")
    for row in (rows[3], rows[0], rows[4], rows[0]):
        assert worst_difference(session, "qwen2_5_vl", [row]) < TOLERANCE


class _OtherFeatures(tf.LlavaForConditionalGeneration):
    """Its own forward and ``get_image_features`` do not agree."""

    def get_image_features(self, *arguments: Any, **options: Any) -> Any:
        found = super().get_image_features(*arguments, **options)
        found.pooler_output = [1.1 * part for part in found.pooler_output]
        return found


def test_features_that_do_not_give_the_logits_of_pixels_are_not_reused() -> None:
    plain = tiny_pictures.model("llava")
    model = _OtherFeatures(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    session = opened("llava", model)
    assert any("cannot be reused" in note for note in session.info.notes)
    rows = tiny_pictures.rows("llava")
    assert worst_difference(session, "llava", rows[:2]) < TOLERANCE
    assert not session.layout.media.padding


def test_pictures_without_effect_are_noted() -> None:
    """As those of a Gemma 3 whose projector was never trained."""
    model = copy.deepcopy(tiny_pictures.model("gemma3"))
    torch.nn.init.zeros_(model.model.multi_modal_projector.mm_input_projection_weight)
    session = opened("gemma3", model)
    assert any("no effect" in note for note in session.info.notes)


def test_a_small_effect_in_half_precision_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding in other shapes may change more, so that the features of another picture would pass as rounding."""
    model = copy.deepcopy(tiny_pictures.model("llava", torch.bfloat16))
    with torch.no_grad():
        bias = model.model.multi_modal_projector.linear_2.bias
        bias += torch.linspace(-100, 100, len(bias))  # what a picture adds to it is small
    processor = tiny_pictures.processor("llava")
    traits = probe_pictures(model, processor)
    assert traits.effect and traits.reuse
    monkeypatch.setattr(Tower, "arguments", _upside_down)
    traits = probe_pictures(model, processor)
    assert traits.effect and not traits.reuse


def test_a_hook_on_the_model_turns_shortcuts_off() -> None:
    model = copy.deepcopy(tiny_pictures.model("llava"))
    model.model.language_model.norm.register_forward_hook(lambda module, given, found: found * 1.5)
    session, rows = opened("llava", model), tiny_pictures.rows("llava")
    found = session.log_probs(ap.ScoringBatch((rows[0], rows[2])))
    alone = [session.log_probs(ap.ScoringBatch((row,)))[0] for row in (rows[0], rows[2])]
    for ours, one, row in zip(found, alone, (rows[0], rows[2]), strict=True):
        assert torch.allclose(ours[: len(row.target)], one[: len(row.target)], atol=1e-5)
    assert worst_difference(session, "llava", rows[:1]) > SEEN, "the hook has no effect"


def test_tiles_of_exactly_zero_are_refused() -> None:
    """Idefics3 takes a tile of zeros for padding, and has no features of it."""
    processor = copy.deepcopy(tiny_pictures.processor("idefics3"))
    processor.image_processor.do_normalize = False
    session = opened("idefics3", processor=processor)
    black = np.zeros((64, 64, 3), np.uint8)
    writer = PictureWriter(processor, [black])
    row = Row(writer.read(writer.before("What?"), special_tokens=True), (40, 41), (Media.of("image", black),))
    with pytest.raises(ap.ScoreError, match="The model failed on a prompt"):
        session.log_probs(ap.ScoringBatch((row,)))


# --- families that are not known --------------------------------------------------------------------------------------


def _blip2() -> tuple[Any, Any]:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tok = tiny_pictures.tokenizer(["<image>"])
    processor = tf.Blip2Processor(BlipImageProcessorPil(size={"height": 64, "width": 64}), tok, num_query_tokens=8)
    image = tok.convert_tokens_to_ids("<image>")
    text = {
        "model_type": "opt", "vocab_size": len(tok), "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "word_embed_proj_dim": 64, "max_position_embeddings": 512,
    }  # fmt: skip
    former = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "encoder_hidden_size": 32, "vocab_size": 100,
    }  # fmt: skip
    config = tf.Blip2Config(
        vision_config=dict(tiny_pictures.VISION), qformer_config=former, text_config=text, num_query_tokens=8,
        image_token_index=image, image_token_id=image,
    )  # fmt: skip
    return tf.Blip2ForConditionalGeneration(config), processor


def _git() -> tuple[Any, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tok = tiny_pictures.tokenizer()
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = tf.GitConfig(vision_config=dict(tiny_pictures.VISION), vocab_size=len(tok), **sizes)
    return tf.GitForCausalLM(config), tf.GitProcessor(pictures, tok)


def _mllama() -> tuple[Any, Any]:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    tok = tiny_pictures.tokenizer(image_token="<|image|>")
    pictures = MllamaImageProcessorPil(size={"height": 64, "width": 64}, max_image_tiles=2)
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
        "attention_heads": 4, "image_size": 64, "patch_size": 16, "max_num_tiles": 2, "vision_output_dim": 64,
        "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    }  # fmt: skip
    text = tiny_pictures.text_config(len(tok), cross_attention_layers=[1], pad_token_id=0)
    config = tf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=tok.image_token_id)
    return tf.MllamaForConditionalGeneration(config), tf.MllamaProcessor(pictures, tok)


@pytest.mark.parametrize(
    ("make", "reason"), [(_git, "logits for a row of"), (_mllama, "cross_attention_mask")], ids=["git", "mllama"]
)
def test_models_that_cannot_be_proven_right_refuse_pictures(make: Callable[[], Any], reason: str) -> None:
    model, processor = make()
    with ap.Explainer((model.eval(), processor), backend="torch", progress=False) as explainer:
        assert ap.Capability.IMAGES not in explainer.session.capabilities
        with pytest.raises(ap.CapabilityError, match=reason):
            explainer.attribute(ap.ImageText(tiny_pictures.picture(0), "a"), " b", method="ablation")
        # They are models of text nevertheless.
        assert len(explainer.attribute("one two", " b", method="ablation").values) == 2


def test_an_unknown_family_is_read_row_by_row() -> None:
    """BLIP-2, whose processor writes the placeholders, and which takes no features."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, processor = _blip2()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.eval()
    picture = tiny_pictures.picture(0)
    with ap.Explainer((model, processor), backend="torch", progress=False) as explainer:
        prompt = ap.ImageText(picture, "What is this?", segments="grid:2x2", text_by=None)
        result = explainer.attribute(prompt, " it", method="ablation")
    assert any("cannot be reused" in note for note in result.provenance.notes)
    seen = processor(images=[picture], text=["What is this?"], return_tensors="pt")
    target = processor.tokenizer(" it", add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.cat([seen["input_ids"], target], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=seen["pixel_values"], attention_mask=torch.ones_like(ids)).logits
    known = logits[0, seen["input_ids"].shape[1] - 1 : -1].double().log_softmax(-1)
    assert result.full_value == pytest.approx(float(known.gather(-1, target.T).sum()), abs=TOLERANCE)
    assert np.abs(result.values).max() > SEEN


# --- a game of regions and words --------------------------------------------------------------------------------------


def brute_force(
    family: str, picture: np.ndarray, words: Sequence[str], masks: Sequence[np.ndarray], target: str
) -> Any:
    """Exact Shapley values of regions and words in float64, one row at a time from pixels."""
    processor = tiny_pictures.processor(family)
    fill = np.rint(picture.reshape(-1, 3).mean(0)).astype(np.uint8)
    answer = tuple(processor.tokenizer(target, add_special_tokens=False)["input_ids"])
    n, scores = len(masks) + len(words), {}
    for present in itertools.product((False, True), repeat=n):
        shown = picture.copy()
        for mask, here in zip(masks, present, strict=False):
            if not here:
                shown[mask] = fill
        kept = [word for word, here in zip(words, present[len(masks) :], strict=True) if here]
        writer = PictureWriter(processor, [shown])
        row = Row(writer.read(writer.before(" ".join(kept)), special_tokens=True), answer, (Media.of("image", shown),))
        logits = tiny_pictures.logits(family, row, torch.float64).log_softmax(-1)
        scores[present] = float(logits[torch.arange(len(answer)), torch.tensor(answer)].sum())
    values = np.zeros(n)
    for present, score in scores.items():
        size = sum(present)
        for i, here in enumerate(present):
            others = size - here
            weight = math.factorial(others) * math.factorial(n - others - 1) / math.factorial(n)
            values[i] += weight * score * (1 if here else -1)
    return values


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "paligemma"])
def test_values_are_those_of_one_row_at_a_time_from_pixels(family: str) -> None:
    picture = tiny_pictures.picture(5)
    left, right, middle = np.zeros((3, 64, 64), bool)
    left[:, :30], right[:, 30:], middle[20:40, 10:50] = True, True, True
    masks = [left, right, middle]
    with explained(family, torch.float64) as explainer:
        prompt = ap.ImageText(picture, "What is", segments=masks)
        cost = explainer.estimate(prompt, "it", method="shapley")
        result = explainer.attribute(prompt, "it", method="shapley")
    assert result.feature_names == ("mask 1", "mask 2", "mask 3", "What", "is")
    expected = brute_force(family, picture, ["What", "is"], masks, "it")
    assert result.values == pytest.approx(expected, abs=1e-9)
    assert abs(result.efficiency_gap or 0) < 1e-9
    # Of 8 coalitions of regions, 7 look different: both halves together cover the middle, too.
    assert result.provenance.evaluations == 7 * 4
    assert result.provenance.encoded_media == cost.encoded_media == 7


def test_no_picture_is_encoded_twice_in_a_joint_run() -> None:
    with explained("llava") as explainer:
        prompt = ap.ImageText(tiny_pictures.picture(1), "What is this thing?", segments="grid:2x2")
        result = explainer.attribute(prompt, " it", method="permutation", budget=120, seed=1)
        cost = explainer.estimate(prompt, " it", method="permutation", budget=120, seed=1)
        assert result.provenance.encoded_media == 2**4 == cost.encoded_media
        assert result.provenance.evaluations > 60
        assert result.provenance.forwarded_tokens == cost.forwarded_tokens
        more = explainer.refine(result, budget=200)
        assert more.provenance.encoded_media == 2 * 2**4, "features are not kept from run to run: the model may change"


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl", "gemma3"])
def test_a_picture_before_many_texts_is_read_once_where_that_is_proven(family: str) -> None:
    words = "What is to the left of the red one in this picture, and what is above it?"
    prompt = ap.ImageText(tiny_pictures.picture(1), words, segments=None)
    with explained(family) as sharing, explained(family, share_prefixes=False) as whole:
        options = {"method": "permutation", "budget": 120}
        results = [one.attribute(prompt, " it", **options) for one in (sharing, whole)]
        cost = sharing.estimate(prompt, " it", **options)
    assert results[0].values == pytest.approx(results[1].values, abs=1e-4)
    ours, theirs = (one.provenance.forwarded_tokens for one in results)
    assert not [note for one in results for note in one.provenance.notes if "sharing" in note]
    proven = family != "gemma3"  # whose sliding windows keep another kind of state
    assert (ours < 0.8 * theirs) is proven
    assert cost.forwarded_tokens == ours and cost.encoded_media == results[0].provenance.encoded_media == 1


def test_text_after_pictures_is_read_at_its_own_positions() -> None:
    """Qwen2.5-VL would count on from the last picture, in gradients and with a cache."""
    with explained("qwen2_5_vl") as explainer:
        before = [explainer.attribute("one two three", " x", method=m) for m in ("saliency", "shapley")]
        explainer.attribute(ap.ImageText(tiny_pictures.picture(1, 96, 64), "a b"), " x", method="ablation")
        after = [explainer.attribute("one two three", " x", method=m) for m in ("saliency", "shapley")]
    for one, other in zip(before, after, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-6)


def test_little_memory_for_features_still_encodes_each_picture_of_a_query_once() -> None:
    features = 16 * 64 * 4
    with explained("llava") as plenty, explained("llava", memory_budget=2 * 3 * features) as little:
        assert little.session.layout.media is not None and little.session.layout.media.kept_media == 3
        prompt = ap.ImageText(tiny_pictures.picture(1), "What is this?", segments="grid:2x2")
        results = [one.attribute(prompt, " it", method="shapley") for one in (plenty, little)]
        cost = little.estimate(prompt, " it", method="shapley")
    assert results[0].values == pytest.approx(results[1].values, abs=1e-5)
    assert results[1].provenance.encoded_media == 16 == cost.encoded_media


def test_results_with_many_runs_a_cache_and_another_run_are_the_same(tmp_path: Any) -> None:
    pictures = [tiny_pictures.picture(seed) for seed in (3, 4)]
    prompts = [ap.ImageText(one, "What?", segments="grid:2x2") for one in pictures]
    with explained("llava") as explainer:
        alone = [explainer.attribute(one, " it", method="shapley") for one in prompts]
        many = list(explainer.attribute_many(prompts, target=" it", method="shapley"))
    with explained("llava", cache=tmp_path / "scores.db") as explainer:
        first, again = (explainer.attribute(prompts[0], " it", method="shapley") for _ in range(2))
        other = explainer.attribute(prompts[1], " it", method="shapley")
    for one, two in zip(alone, many, strict=True):
        assert one.values == pytest.approx(two.values, abs=1e-5)
    assert again.provenance.evaluations == 0 and again.provenance.encoded_media == 0
    assert again.values == pytest.approx(first.values)
    assert other.provenance.cached == 0, "another picture behind the same prompt is another input"
    assert not np.allclose(alone[0].values, alone[1].values, atol=SEEN)


def test_low_pictures_are_not_taken_for_arrays_with_their_channels_first() -> None:
    picture = tiny_pictures.picture(1, 40, 3)
    made = tiny_pictures.processor("llava")
    row = tiny_pictures.rows("llava")[0]
    session = opened("llava")
    found = session.log_probs(ap.ScoringBatch((replace(row, media=(Media.of("image", picture),)),)))
    turned = Image.fromarray(np.ascontiguousarray(picture))
    seen = made(images=[[turned]], text=["<image>"], return_tensors="pt")["pixel_values"]
    ids = torch.tensor([row.read])
    with torch.no_grad():
        logits = tiny_pictures.model("llava")(input_ids=ids, pixel_values=seen).logits[0, len(row.prompt) - 1 :]
    known = logits.double().log_softmax(-1)[torch.arange(len(row.target)), list(row.target)]
    assert found[0].double() == pytest.approx(known, abs=TOLERANCE)


def test_another_image_processor_is_another_model() -> None:
    """Its settings decide scores, so they are part of fingerprints and of the keys of caches."""
    processor = copy.deepcopy(tiny_pictures.processor("llava"))
    processor.image_processor.image_mean = [0.1] * 3
    one, other = opened("llava"), opened("llava", processor=processor)
    assert one.fingerprint() != other.fingerprint() and one.checksum() != other.checksum()


# --- opening and generating -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl", "paligemma", "internvl"])
def test_saved_models_are_opened_with_their_processors(family: str, tmp_path: Any) -> None:
    tiny_pictures.model(family).save_pretrained(tmp_path)
    tiny_pictures.processor(family).save_pretrained(tmp_path)
    prompt = ap.ImageText(tiny_pictures.picture(2), "What?", segments="grid:1x2", text_by=None)
    with ap.Explainer(str(tmp_path), backend="torch", progress=False) as named, explained(family) as objects:
        assert ap.Capability.IMAGES in named.session.capabilities
        both = [one.attribute(prompt, " it", method="ablation") for one in (named, objects)]
    assert both[0].values == pytest.approx(both[1].values, abs=1e-5)
    assert type(open_processor(str(tmp_path), {})).__name__ == type(tiny_pictures.processor(family)).__name__


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen3_vl", "paligemma"])
def test_the_target_that_a_model_writes_is_its_own(family: str) -> None:
    picture, processor, model = tiny_pictures.picture(2), tiny_pictures.processor(family), tiny_pictures.model(family)
    writer = PictureWriter(processor, [picture])
    with explained(family) as explainer:
        prompt = ap.ImageText(picture, "What?", segments="grid:1x2", text_by=None)
        result = explainer.attribute(prompt, method="ablation", generate={"max_new_tokens": 5})
    text = writer.before("What?")
    seen = dict(processed(processor, text, [picture], return_tensors="pt").items())
    seen.pop("labels", None)
    written = model.generate(**seen, max_new_tokens=5, do_sample=False)[0, seen["input_ids"].shape[1] :]
    assert explainer.target_of(result) == tuple(written.tolist())


def test_other_backends_refuse_models_of_pictures(tmp_path: Any) -> None:
    """They would read the text alone."""
    with pytest.raises(ap.ModelError, match="reads pictures, and exports are of models of text"):
        ap.export("shapes", tmp_path / "export")
    spec = tiny_pictures.spec("llava")
    with pytest.raises(ap.BackendError, match="opened with a processor of pictures"):
        TritonBackend().load(spec, kernels="always")


def test_a_processor_beside_a_pair_is_used() -> None:
    made = tiny_pictures.processor("llava")
    model = tiny_pictures.model("llava")
    for arguments in (
        {"model": (model, made)},
        {"model": (model, made.tokenizer), "processor": made},
        {"model": model, "processor": made},
    ):
        with ap.Explainer(**arguments, backend="torch", progress=False) as explainer:
            assert ap.Capability.IMAGES in explainer.session.capabilities
    with (
        ap.Explainer((model, made.tokenizer), backend="torch", progress=False) as explainer,
        pytest.raises(ap.CapabilityError, match="or with its processor"),
    ):
        explainer.attribute(ap.ImageText(tiny_pictures.picture(0), "a"), " b")


@pytest.mark.parametrize("family", ["llava", "paligemma"])
def test_an_absent_token_of_the_target_is_not_read(family: str) -> None:
    """PaliGemma reads a prompt in both directions; what it reads of the target is no part of the prompt."""
    picture, processor = tiny_pictures.picture(3), tiny_pictures.processor(family)
    with explained(family) as explainer:
        prompt = ap.ImageText(picture, "What is it", segments=None)
        result = explainer.attribute(prompt, "yes", method="ablation", attribute_generated=True)
    assert result.feature_names[-2:] == ("→ y", "→ e")
    writer = PictureWriter(processor, [picture])
    ids = writer.read(writer.before("What is it"), special_tokens=True)
    y, e, s = processor.tokenizer("yes", add_special_tokens=False)["input_ids"]

    def last(read: tuple[int, ...]) -> float:
        """Log-probability of the last token after some of those before it."""
        row = Row(ids, (*read, s), (Media.of("image", picture),))
        return float(tiny_pictures.logits(family, row).log_softmax(-1)[-1, s])

    assert result.token_values[2, -2] == pytest.approx(last((y, e)) - last((e,)), abs=TOLERANCE)
    assert result.token_values[2, -1] == pytest.approx(last((y, e)) - last((y,)), abs=TOLERANCE)


def test_text_alone_is_read_in_the_directions_that_the_model_was_trained_for() -> None:
    """PaliGemma reads a prompt in both directions, with a picture or without."""
    family = "paligemma"
    session, processor = opened(family), tiny_pictures.processor(family)
    ids = tuple(processor.tokenizer("What is this?", add_special_tokens=False)["input_ids"])
    rows = (Row(ids, (40, 41, 42)), Row(ids[:5], (43, 44)))
    for row, ours in zip(rows, session.log_probs(ap.ScoringBatch(rows)), strict=True):
        known = tiny_pictures.logits(family, row).log_softmax(-1)[torch.arange(len(row.target)), list(row.target)]
        assert ours[: len(row.target)].double() == pytest.approx(known, abs=TOLERANCE)
    assert not session.capabilities & {ap.Capability.GRADIENTS, ap.Capability.HIDDEN_STATES}
