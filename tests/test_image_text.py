"""Prompts with pictures: their regions and words, what is read of them, and pictures that are refused."""

from __future__ import annotations

import copy
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import apportion as ap
from apportion.cli import main
from apportion.protocols.row import ModelInput
from apportion.testing import shapes, tiny_pictures

SCENE = shapes.Scene((shapes.Thing("red", "circle", 0, 1), shapes.Thing("blue", "square", 3, 1)))
QUESTION = "what colour is the circle ?"
PIXELS = shapes.draw(SCENE, np.random.default_rng(0))


CONTENTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}"
)
"""Contents of a message in a chat template."""


@pytest.fixture(scope="module")
def explainer() -> Iterator[ap.Explainer]:
    """The model ``shapes``."""
    with ap.Explainer("shapes", backend="torch", progress=False) as made:
        yield made


def rendered(explainer: ap.Explainer, prompt: object, *masks: list[bool]) -> list[ModelInput]:
    """The model inputs of some coalitions."""
    from apportion.hooks.manager import installed_plugins

    plugins = installed_plugins()
    context = ap.AdaptContext.of_session(explainer.session, make=plugins.make)
    adapter = plugins.call("apportion_adapt_input", prompt=prompt, context=context)
    n = len(adapter.features)
    return adapter.render(torch.tensor([mask or [True] * n for mask in masks], dtype=torch.bool))


# --- what the model answers, and why --------------------------------------------------------------------------------


def test_the_cell_of_a_thing_decides_its_colour(explainer: ap.Explainer) -> None:
    result = explainer.attribute(ap.ImageText(PIXELS, QUESTION), method="permutation", budget=400)
    assert result.whole_target.startswith("red")
    assert result.features[int(np.argmax(result.values[:16]))].name == "row 1, column 2"
    assert result.feature_names[16:] == ("what", "colour", "is", "the", "circle", "?")
    assert result.values[16:].argmax() in (1, 4), "'colour' or 'circle'"
    picture = result.pictures[0]
    assert (picture.width, picture.height, picture.fill, len(picture.regions)) == (64, 64, "mean", 16)
    assert np.array_equal(picture.pixels, PIXELS)


def test_a_result_is_saved_with_regions_and_without_pixels(explainer: ap.Explainer, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "scene.png")
    prompt = ap.ImageText(str(tmp_path / "scene.png"), QUESTION, segments="grid:2x2")
    result = explainer.attribute(prompt, " red", method="ablation")
    result.save(tmp_path / "a.json")
    result.save(tmp_path / "b.json", pixels=True)
    plain, full = (ap.Attribution.load(tmp_path / name) for name in ("a.json", "b.json"))
    assert plain.pictures[0].pixels is None and np.array_equal(full.pictures[0].pixels, PIXELS)
    for one in (plain, full):
        assert one.pictures[0].name == "scene.png"
        assert all(np.array_equal(mask, result.pictures[0].regions[i]) for i, mask in one.pictures[0].regions.items())
    assert "iVBOR" not in (tmp_path / "a.json").read_text()
    # The prompt is made again from the path of its picture, and continues.
    again = explainer.refine(explainer.attribute(prompt, " red", method="permutation", budget=24), budget=60)
    assert again.provenance.evaluations > 24
    loaded = ap.Attribution.load(
        explainer.attribute(prompt, " red", method="permutation", budget=24).save(tmp_path / "c")
    )
    assert explainer.refine(loaded, budget=60).values == pytest.approx(again.values, abs=1e-6)
    Image.fromarray(255 - PIXELS).save(tmp_path / "scene.png")
    with pytest.raises(ap.InputError, match="prompt"):
        explainer.refine(ap.Attribution.load(tmp_path / "c"), budget=60)


def _saved_scene(folder: Path) -> Path:
    Image.fromarray(PIXELS).save(folder / "scene.png")
    return folder / "scene.png"


def test_a_fill_that_has_changed_is_noticed(explainer: ap.Explainer, tmp_path: Path) -> None:
    fill = tmp_path / "behind.png"
    Image.new("RGB", (64, 64), "black").save(fill)
    prompt = ap.ImageText(_saved_scene(tmp_path), QUESTION, segments="grid:2x2", fill=fill)
    saved_as = explainer.attribute(prompt, " red", method="permutation", budget=24).save(tmp_path / "result.json")
    explainer.refine(ap.Attribution.load(saved_as), budget=40)
    Image.new("RGB", (64, 64), "white").save(fill)
    with pytest.raises(ap.InputError, match="file of a picture or of its fill has changed"):
        explainer.refine(ap.Attribution.load(saved_as), budget=40)


@pytest.mark.parametrize(
    "damage", [{"width": 0}, {"regions": {"0": [1, 2]}}, {"regions": {"99": [4096]}}, {"png": "x"}]
)
def test_damaged_pictures_of_a_file_are_refused(explainer: ap.Explainer, damage: Any) -> None:
    import json

    from apportion.results.result_json import fields_of

    result = explainer.attribute(ap.ImageText(PIXELS, QUESTION, segments="grid:2x2"), " red", method="ablation")
    data = json.loads(json.dumps(result.to_dict(pixels=True)))
    data["pictures"][0] |= damage
    with pytest.raises(ap.ResultError, match="damaged"):
        fields_of(data, "the file")


def test_fills_are_compared(explainer: ap.Explainer) -> None:
    prompt = ap.ImageText(PIXELS, QUESTION, segments="grid:4x4", text_by=None)
    found = explainer.compare_fills(prompt, " red", fills=["mean", "blur:8", (0, 0, 0)], method="ablation")
    assert found.names == ("mean", "blur:8", "colour (0, 0, 0)")
    assert found.rank_correlation.shape == (3, 3)
    assert all(one.values.argmax() == 1 for one in found.results)
    for wrong, message in (
        ((prompt, ["mean"]), "Two fills or more"),
        (("a text", ["mean", "blur"]), "prompts with pictures"),
        ((prompt, ["mean", "mean"]), "given twice"),
        ((ap.ImageText(PIXELS, QUESTION, segments=None), ["mean", "blur"]), "no region is ever absent"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.compare_fills(wrong[0], " red", fills=wrong[1])


def test_words_and_regions_interact(explainer: ap.Explainer) -> None:
    prompt = ap.ImageText(PIXELS, QUESTION, segments="grid:4x4")
    result = explainer.attribute(prompt, " red", method="interactions", budget=600)
    pairs = result.to_dataframe("pairs")
    assert len(pairs) == 22 * 21 // 2
    strongest = pairs.iloc[pairs["interaction"].abs().argmax()]
    assert {strongest["feature"], strongest["other"]} == {"row 1, column 2", "colour"}


# --- regions ----------------------------------------------------------------------------------------------------------


def test_pixels_are_absent_if_one_of_their_regions_is(explainer: ap.Explainer) -> None:
    left, middle = np.zeros((2, 64, 64), bool)
    left[:, :32], middle[:, 20:40] = True, True
    prompt = ap.ImageText(PIXELS, QUESTION, {"left": left, "middle": middle}, fill="black", text_by=None)
    full, no_left, no_middle, none = rendered(explainer, prompt, [True] * 2, [False, True], [True, False], [False] * 2)
    for item, gone in ((full, left & ~left), (no_left, left), (no_middle, middle), (none, left | middle)):
        shown = item.media[0].content()
        assert np.array_equal(shown, np.where(gone[..., None], 0, PIXELS))
    assert full.ids == none.ids


@pytest.mark.parametrize(
    ("segments", "names"),
    [
        ("grid:1x2", ("row 1, column 1", "row 1, column 2")),
        ("grid:columns=2,rows=1", ("row 1, column 1", "row 1, column 2")),
        ([(0, 0, 32, 64), (32, 0, 64, 64)], ("box 1", "box 2")),
        ({"sky": (0, 0, 64, 20), "sea": (0, 20, 64, 64)}, ("sky", "sea")),
        (np.repeat([[0, 7]], 64, 0).repeat(32, 1), ("region 0", "region 7")),
        (torch.tensor([[-1, 3]]).repeat(64, 1).repeat_interleave(32, 1), ("region 3",)),
        ([np.ones((64, 64), bool), torch.zeros(64, 64, dtype=torch.bool)], ("mask 1", "mask 2")),
    ],
    ids=["grid", "grid by name", "boxes", "named boxes", "label map", "tensor", "masks"],
)
def test_regions_are_given_in_many_forms(explainer: ap.Explainer, segments: Any, names: tuple[str, ...]) -> None:
    result = explainer.attribute(ap.ImageText(PIXELS, QUESTION, segments, text_by=None), " red", method="ablation")
    assert result.feature_names == names


def test_uncovered_pixels_and_empty_masks_are_noted(explainer: ap.Explainer) -> None:
    masks = [np.zeros((64, 64), bool), np.zeros((64, 64), bool)]
    masks[0][:16] = True
    result = explainer.attribute(ap.ImageText(PIXELS, QUESTION, masks, text_by=None), " red", method="shapley")
    assert any("75.0 % of the picture is in no region" in note for note in result.provenance.notes)
    assert any("without any pixel have no effect: 'mask 2'" in note for note in result.provenance.notes)
    assert result.values[1] == 0 and result.provenance.evaluations == 2


def test_the_models_own_patches_are_regions() -> None:
    for family, size, count in (("llava", (64, 64), 16), ("qwen2_5_vl", (96, 64), 24), ("gemma3", (80, 60), 4)):
        with ap.Explainer(
            (tiny_pictures.model(family), tiny_pictures.processor(family)), backend="torch", progress=False
        ) as explainer:
            prompt = ap.ImageText(tiny_pictures.picture(0, *size), "a", "patches", text_by=None)
            result = explainer.attribute(prompt, " x", method="ablation")
            assert len(result.values) == count
    with (
        ap.Explainer(
            (tiny_pictures.model("idefics3"), tiny_pictures.processor("idefics3")), backend="torch", progress=False
        ) as explainer,
        pytest.raises(ap.InputError, match="5 tiles, which have no common patches"),
    ):
        explainer.attribute(ap.ImageText(tiny_pictures.picture(0), "a", "patches"), " x")


# --- texts ------------------------------------------------------------------------------------------------------------


def test_several_pictures_have_regions_of_their_own() -> None:
    family = "qwen2_5_vl"
    pictures = [tiny_pictures.picture(0), tiny_pictures.picture(1, 96, 64)]
    with ap.Explainer(
        (tiny_pictures.model(family), tiny_pictures.processor(family)), backend="torch", progress=False
    ) as explainer:
        prompt = ap.ImageText(pictures, "What is it?", segments=["grid:1x2", None])
        result = explainer.attribute(prompt, " it", method="shapley")
        assert result.feature_names[:3] == ("picture 1, row 1, column 1", "picture 1, row 1, column 2", "What")
        assert [len(one.regions) for one in result.pictures] == [2, 0]
        assert result.provenance.encoded_media == 5, "four of the first, and one of the second"
        both = explainer.attribute(ap.ImageText(pictures, "a", segments="grid:1x2"), " it", method="ablation")
        assert [sorted(one.regions) for one in both.pictures] == [[0, 1], [2, 3]]
        with pytest.raises(ap.InputError, match="a list of 2"):
            explainer.attribute(ap.ImageText(pictures, "a", segments=["grid:1x2"]), " it")


@pytest.mark.parametrize("by", ["turns", "words"])
def test_pictures_stand_in_chats(explainer: ap.Explainer, by: str) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what shape is the red thing ?"}]},
        {"role": "assistant", "content": "circle"},
        {"role": "user", "content": "what colour is the square ?"},
    ]
    chat = ap.Chat(messages, by=by, keep=())
    result = explainer.attribute(ap.ImageText(PIXELS, chat, segments="grid:1x2"), " blue", method="ablation")
    assert result.feature_names[:2] == ("row 1, column 1", "row 1, column 2")
    # Without its text, a turn still shows its picture.
    (item,) = rendered(explainer, ap.ImageText(PIXELS, chat, segments="grid:1x2"), [False] * len(result.values))
    assert item.ids.count(4) == 16 and len(item.media) == 1


def test_templates_and_texts_stand_beside_pictures(explainer: ap.Explainer) -> None:
    template = ap.Template("what colour is the {thing} ?", {"thing": "circle"}, {"thing": ["square", "triangle"]})
    result = explainer.attribute(ap.ImageText(PIXELS, template, segments="grid:1x2"), " red", method="shapley")
    assert result.feature_names == ("row 1, column 1", "row 1, column 2", "thing")
    assert result.values[2] > 1, "no other thing is red"
    text = ap.Text(QUESTION, by="words", baseline="<unk>", keep=["?"])
    with pytest.raises(ap.InputError, match="'<unk>'"):
        explainer.attribute(ap.ImageText(PIXELS, text, segments=None), " red", method="ablation")
    placed = ap.ImageText(PIXELS, f"<s> <image> {QUESTION}", segments="grid:1x2", text_by=None)
    framed = ap.ImageText(PIXELS, QUESTION, segments="grid:1x2", text_by=None)
    assert rendered(explainer, placed, [True] * 2)[0].ids == rendered(explainer, framed, [True] * 2)[0].ids


class Halves:
    """A segmenter, whose regions a test gives."""

    def __init__(self, regions: Any) -> None:
        self.regions = regions

    def segment(self, pixels: np.ndarray, processor: Any) -> Any:
        """The regions; or a failure, if they are one."""
        if isinstance(self.regions, Exception):
            raise self.regions
        return self.regions


class Fading:
    """A fill without ``once``."""

    def fill(self, pixels: np.ndarray, absent: np.ndarray, seed: int) -> np.ndarray:
        """The same pixels."""
        return pixels


class Scribbling(Fading):
    """A fill that writes where it must not."""

    once = False

    def __init__(self, into: str) -> None:
        self.into = into

    def fill(self, pixels: np.ndarray, absent: np.ndarray, seed: int) -> np.ndarray:
        """Change the picture, or the mask."""
        array = {"pixels": pixels, "absent": absent}[self.into]
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True
        array[:] = 0
        return pixels


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (None, "returned None; it must return a list of Regions"),
        ({"left": 1}, "must return a list of Regions"),
        ([], "returned no region"),
        (["left"], "must return Regions"),
        ([ap.Region("left", np.ones((2, 2), bool))], "a mask of the shape"),
        ([ap.Region("", np.ones((64, 64), bool))], "must be a text"),
        ([ap.Region("left", np.ones((64, 64), bool))] * 2, "two regions with the name 'left'"),
        (ValueError("odd"), "The segmenter Halves failed: ValueError: odd"),
    ],
)
def test_faulty_segmenters_are_named(explainer: ap.Explainer, regions: Any, message: str) -> None:
    with pytest.raises(ap.PluginError, match=message):
        explainer.attribute(ap.ImageText(PIXELS, QUESTION, segments=Halves(regions)), " red")


def _rows_of_one_buffer(pixels: np.ndarray) -> Iterator[ap.Region]:
    mask = np.zeros(pixels.shape[:2], bool)
    for i in range(4):
        mask[:] = False
        mask[16 * i : 16 * (i + 1)] = True
        yield ap.Region(f"row {i + 1}", mask)


def test_a_segmenter_may_use_its_mask_again(explainer: ap.Explainer) -> None:
    by_name = explainer.attribute(ap.ImageText(PIXELS, QUESTION, "grid:4x1", text_by=None), " red", method="ablation")
    prompt = ap.ImageText(PIXELS, QUESTION, Halves(_rows_of_one_buffer(PIXELS)), text_by=None)
    assert explainer.attribute(prompt, " red", method="ablation").values == pytest.approx(by_name.values, abs=1e-6)


class Buffered(Fading):
    """The mean of a picture, in one buffer for all pictures."""

    once = True
    buffer = np.zeros_like(PIXELS)

    def fill(self, pixels: np.ndarray, absent: np.ndarray, seed: int) -> np.ndarray:
        """The mean."""
        self.buffer[:] = pixels.mean((0, 1)).round()
        return self.buffer


class Drawn(Fading):
    """A fill that draws from a generator of its own."""

    once = False
    generator = np.random.default_rng(0)

    def fill(self, pixels: np.ndarray, absent: np.ndarray, seed: int) -> np.ndarray:
        """Noise."""
        return self.generator.integers(0, 255, pixels.shape, np.uint8)


def test_fills_are_kept_and_checked(explainer: ap.Explainer) -> None:
    pictures = [PIXELS, 255 - PIXELS]
    with ap.Explainer(
        (tiny_pictures.model("llava"), tiny_pictures.processor("llava")), backend="torch", progress=False
    ) as several:
        own, mean = (
            several.attribute(ap.ImageText(pictures, "Why?", "grid:1x2", fill, text_by=None), "so", method="ablation")
            for fill in (Buffered(), "mean")
        )
    assert own.values == pytest.approx(mean.values, abs=1e-6), "the second picture does not change the first"
    with pytest.raises(ap.PluginError, match="The fill Drawn returned other pixels for the same picture, mask and"):
        explainer.attribute(ap.ImageText(PIXELS, QUESTION, fill=Drawn()), " red", method="ablation")


def test_fills_are_given_in_many_forms(
    explainer: ap.Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(fill: object) -> np.ndarray:
        prompt = ap.ImageText(PIXELS, QUESTION, segments="grid:2x2", fill=fill, text_by=None)
        return explainer.attribute(prompt, " red", method="ablation").values

    white = values("white")
    for fill in (
        (255, 255, 255),
        np.array([255, 255, 255]),
        "#ffffff",
        np.full_like(PIXELS, 255),
        Image.new("L", (9, 9), 255),
    ):
        assert values(fill) == pytest.approx(white, abs=1e-6)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "white").save("mean", "PNG")
    assert values(Path("mean")) == pytest.approx(white, abs=1e-6), "a path is a file"
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = ap.ImageText(PIXELS, QUESTION, "grid:1x2", saved(Image.fromarray(PIXELS), "PNG", exif=exif), text_by=None)
    notes = explainer.attribute(turned, " red", method="ablation").provenance.notes
    assert any("the fill is turned upright" in note.lower() for note in notes)


@pytest.mark.parametrize("into", ["pixels", "absent"])
def test_fills_cannot_change_what_the_model_is_shown(explainer: ap.Explainer, into: str) -> None:
    prompt = ap.ImageText(PIXELS, QUESTION, segments="grid:2x2", fill=Scribbling(into))
    with pytest.raises(ap.PluginError, match="The fill Scribbling failed: ValueError: assignment destination is read"):
        explainer.attribute(prompt, " red")


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        (f"<s> <image> {QUESTION}", ("what", "colour", "is", "the", "circle", "?")),
        (ap.Text(f"<s> <image> {QUESTION}", keep=["?", 1]), ("what", "colour", "is", "the", "circle")),
        ("what<image>colour is the circle ?", ("what", "colour", "is", "the", "circle", "?")),
        ("<s> <image>", ()),
    ],
)
def test_placeholders_in_a_text_are_always_present(
    explainer: ap.Explainer, prompt: str | ap.Text, parts: tuple[str, ...]
) -> None:
    result = explainer.attribute(ap.ImageText(PIXELS, prompt, segments="grid:1x2"), " red", method="ablation")
    assert result.feature_names == ("row 1, column 1", "row 1, column 2", *parts)
    (nothing,) = rendered(explainer, ap.ImageText(PIXELS, prompt, segments="grid:1x2"), [False] * len(result.values))
    assert nothing.ids.count(4) == 16


@pytest.mark.parametrize(
    "prompt",
    [
        QUESTION,
        ap.Text(QUESTION, by="words"),
        ap.Template("what colour is the {thing} ?", {"thing": "circle"}, {"thing": ["square", "triangle"]}),
        ap.Chat([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}], by="words"),
    ],
)
def test_without_text_by_the_text_is_always_present(explainer: ap.Explainer, prompt: Any) -> None:
    whole = ap.ImageText(PIXELS, prompt, segments="grid:1x2", text_by=None)
    one, other = rendered(explainer, whole, [True, True], [False, False])
    assert one.ids == other.ids == rendered(explainer, ap.ImageText(PIXELS, QUESTION, "grid:1x2"), [])[0].ids
    with pytest.raises(ap.InputError, match="leaves nothing to attribute to"):
        explainer.attribute(ap.ImageText(PIXELS, prompt, segments=None, text_by=None), " red")


def test_turns_that_are_always_present_are_not_left_out_on_trial(explainer: ap.Explainer) -> None:
    template = (
        "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('must alternate') }}{% endif %}" + CONTENTS + "{% endfor %}"
    )
    said = [("user", "what"), ("assistant", "colour"), ("user", "is")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    messages[-1]["content"].insert(0, {"type": "image"})
    chat = ap.Chat(messages, chat_template=template)
    with pytest.raises(ap.InputError, match="must alternate"):
        explainer.attribute(ap.ImageText(PIXELS, chat, segments="grid:1x2"), " red")
    whole = ap.ImageText(PIXELS, chat, segments="grid:1x2", text_by=None)
    assert explainer.attribute(whole, " red", method="ablation").feature_names == ("row 1, column 1", "row 1, column 2")


def test_the_templates_of_a_processor_may_have_names() -> None:
    processor = copy.deepcopy(tiny_pictures.processor("llava"))
    processor.tokenizer.chat_template = None
    processor.chat_template = {
        name: f"{{% for message in messages %}}{name}: {CONTENTS}{{% endfor %}}" for name in ("default", "other")
    }
    content = [{"type": "image"}, {"type": "text", "text": "Why so?"}]
    with ap.Explainer((tiny_pictures.model("llava"), processor), backend="torch", progress=False) as explainer:
        for name in (None, "other"):
            chat = ap.Chat([{"role": "user", "content": content}], chat_template=name, by="words")
            (full,) = rendered(explainer, ap.ImageText(PIXELS, chat, segments="grid:1x2"), [])
            assert processor.tokenizer.decode(full.ids[:5]).startswith((name or "default")[:5])


def test_a_chat_of_one_turn_is_kept_beside_regions(explainer: ap.Explainer) -> None:
    chat = ap.Chat([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}])
    result = explainer.attribute(ap.ImageText(PIXELS, chat, segments="grid:1x2"), " red", method="ablation")
    assert result.feature_names == ("row 1, column 1", "row 1, column 2")


def _adding_processor(*, template: str, appends: bool = False) -> Any:
    """A processor whose tokenizer begins each text with ``<s>``, and may end it with ``</s>``."""
    from tokenizers.processors import TemplateProcessing

    made = copy.deepcopy(tiny_pictures.processor("llava"))
    known = [(token, made.tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    single = "<s> $A </s>" if appends else "<s> $A"
    made.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=known)
    made.chat_template = template
    return made


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("as_chat", [False, True])
def test_chats_are_read_as_the_processor_reads_them(begins: bool, as_chat: bool) -> None:
    """Templates that leave the first token to the tokenizer get it, and others do not get it twice."""
    template = ("<s>" if begins else "") + f"{{% for message in messages %}}USER: {CONTENTS}{{% endfor %}} ASSISTANT:"
    processor = _adding_processor(template=template)
    contents = [{"type": "image"}, {"type": "text", "text": "Why so?"}]
    chat = ap.Chat([{"role": "user", "content": contents}], by="words")
    prompt = ap.ImageText(PIXELS, chat if as_chat else "Why so?", segments="grid:1x2")
    shown = [{"type": "image", "image": Image.fromarray(PIXELS)}, contents[1]]
    reference = processor.apply_chat_template(
        [{"role": "user", "content": shown}], tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"][0]
    with ap.Explainer((tiny_pictures.model("llava"), processor), backend="torch", progress=False) as explainer:
        (full,) = rendered(explainer, prompt, [])
        assert list(full.ids) == list(reference) and full.ids.count(processor.tokenizer.bos_token_id) == 1
        # A text that the template has written is read as it is.
        written = processor.apply_chat_template([{"role": "user", "content": contents}], add_generation_prompt=True)
        (full,) = rendered(explainer, ap.ImageText(PIXELS, written, segments="grid:1x2"), [])
        assert list(full.ids) == list(reference)
        # A text alone, too.
        alone = ap.Chat([{"role": "user", "content": [contents[1]]}], by="words")
        (full,) = rendered(explainer, alone, [])
        assert list(full.ids) == list(
            processor.tokenizer(("<s>" if begins else "") + "USER: Why so? ASSISTANT:", add_special_tokens=not begins)[
                "input_ids"
            ]
        )


def test_tokens_that_a_tokenizer_appends_do_not_stand_before_the_answer() -> None:
    processor = _adding_processor(template=f"{{% for message in messages %}}USER: {CONTENTS}{{% endfor %}} ASSISTANT:")
    appending = _adding_processor(template=processor.chat_template, appends=True)
    for template in (processor.chat_template, None):
        processor.chat_template = appending.chat_template = template
        found = []
        for one in (processor, appending):
            with ap.Explainer((tiny_pictures.model("llava"), one), backend="torch", progress=False) as explainer:
                found.append(rendered(explainer, ap.ImageText(PIXELS, "Why so?", segments="grid:1x2"), [])[0].ids)
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (lambda: ap.ImageText([], "a"), "the list is empty"),
        (lambda: ap.ImageText(3, "a"), "3 is not a picture"),
        (lambda: ap.ImageText(PIXELS, 3), "is a str, ap.Text"),
        (lambda: ap.ImageText(PIXELS, "a", text_by="turns"), "No kind of feature is called 'turns'"),
        (lambda: ap.ImageText(PIXELS, ap.Text("a b", by="tokens")), "cannot be split by 'tokens'"),
        (lambda: ap.ImageText(PIXELS, "a", segments=None, text_by=None), "leaves nothing to attribute to"),
        (lambda: ap.ImageText(PIXELS, "a <image> b <image>"), "2 placeholders .* for 1 picture"),
        (lambda: ap.ImageText([PIXELS] * 2, "a <image> b"), "1 placeholder .* for 2 pictures"),
        (lambda: ap.ImageText(PIXELS, "a </s> b"), "'</s>'"),
        (lambda: ap.ImageText(PIXELS, ap.Chat([{"role": "user", "content": "a"}], keep=())), "0 parts of the type"),
        (lambda: ap.ImageText(PIXELS, "a", segments="grid:99"), "does not fit a picture of 64 × 64"),
        (lambda: ap.ImageText(PIXELS, "a", segments="grid:0"), "rows=0 must be a whole number"),
        (lambda: ap.ImageText(PIXELS, "a", segments="slick:4"), "Did you mean 'slic'"),
        (lambda: ap.ImageText(PIXELS, "a", segments="grid:size=2"), "no option 'size'"),
        (lambda: ap.ImageText(PIXELS, "a", segments=np.zeros((3, 4), int)), r"the shape \(3, 4\), but the picture"),
        (lambda: ap.ImageText(PIXELS, "a", segments=[np.zeros((3, 4), bool)]), r"Segment 1 has the shape \(3, 4\)"),
        (lambda: ap.ImageText(PIXELS, "a", segments=[]), "nothing in the segments of the picture"),
        (lambda: ap.ImageText(PIXELS, "a", segments=np.full((64, 64), 0.5)), "not the name of a segmenter"),
        (lambda: ap.ImageText(PIXELS, "a", segments=[np.full((64, 64), 3)]), "other numbers than 0 and 1"),
        (lambda: ap.ImageText(PIXELS, "a", segments=[(0, 0, 99, 10)]), "within the 64 × 64 pixels"),
        (lambda: ap.ImageText(PIXELS, "a", fill="nosie"), "Did you mean 'noise'"),
        (lambda: ap.ImageText(PIXELS, "a", fill=(1, 2, 300)), "each from 0 to 255"),
        (lambda: ap.ImageText(PIXELS, "a", fill="blur:-2"), "radius=-2 must be"),
        (lambda: ap.ImageText(PIXELS.astype(float), "a"), "the dtype float64"),
        (lambda: ap.ImageText(PIXELS[:0], "a"), "has no pixels"),
        (lambda: ap.ImageText(PIXELS, "a", max_pixels=1000), "at most 1,000 are accepted"),
        (lambda: ap.ImageText("nowhere.png", "a"), "There is no picture nowhere.png"),
        (lambda: ap.ImageText("", "a"), "'' is not a picture"),
        (lambda: ap.ImageText("https://example.org/a.png", "a"), "is an address. Pictures are not downloaded"),
        (lambda: ap.ImageText(PIXELS, ap.Text("a b"), text_by="sentences"), "ap.Text says itself what is split"),
        (lambda: ap.ImageText(PIXELS, "a", segments={}), "nothing in the segments of the picture"),
        (lambda: ap.ImageText(PIXELS, "a", segments=np.full((64, 64), -1)), "negative numbers only"),
        (lambda: ap.ImageText(PIXELS, "a", segments=Halves), "segments=Halves is a class"),
        (lambda: ap.ImageText(PIXELS, "a", fill=Fading), "fill=Fading is a class"),
        (lambda: ap.ImageText(PIXELS, "a", fill=Fading()), "the attribute `once`"),
        (lambda: ap.ImageText(PIXELS, "a", fill=len), "is not a fill: an object needs the method"),
        (lambda: ap.ImageText(PIXELS, "a", fill="#80808040"), "has an opacity"),
        (lambda: ap.ImageText(PIXELS, "a", fill=(True, False, True)), "is not a colour"),
        (lambda: ap.ImageText(PIXELS, "a", fill="behind.png"), "There is no picture behind.png, which fill= names"),
        (lambda: ap.ImageText(PIXELS, "a", segments={"": (0, 0, 9, 9)}), "has an empty name"),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused_before_the_model_runs(explainer: ap.Explainer, prompt: Any, message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        explainer.attribute(prompt(), " red")


# --- files ------------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(explainer: ap.Explainer, data: object, **options: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels that the model is shown of a file, and notes."""
    result = explainer.attribute(
        ap.ImageText(data, QUESTION, segments="grid:1x2", text_by=None, **options), " red", method="ablation"
    )
    return result.pictures[0].pixels, result.provenance.notes


def test_files_of_every_mode_are_shown_as_people_see_them(explainer: ap.Explainer) -> None:
    picture = Image.fromarray(PIXELS)
    for mode, kind in (("P", "PNG"), ("CMYK", "TIFF"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("YCbCr", "JPEG")):
        converted = picture.convert(mode)
        pixels, _ = shown(explainer, saved(converted, kind))
        off = np.abs(pixels.astype(int) - np.asarray(converted.convert("RGB"), int))
        assert off.mean() < 6 if kind == "JPEG" else off.max() == 0
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels, notes = shown(explainer, saved(Image.fromarray(deep), "PNG"))
    assert np.abs(pixels[..., 0].astype(float) - deep / 257).max() <= 0.51, "16 bits are not cut off at 255"
    assert any("taken for 0 to 65535, are read with 8 bits" in note for note in notes)
    clear = int(deep[5, 5])
    pixels, notes = shown(explainer, saved(Image.fromarray(deep), "PNG", transparency=clear))
    assert pixels[5, 5, 0] == 255 and any("ransparent pixels" in note for note in notes)
    overshoot = Image.fromarray(np.linspace(0, 1.01, 64 * 64, dtype=np.float32).reshape(64, 64))
    assert shown(explainer, overshoot)[0].max() == 255
    grey = PIXELS[..., 0].astype(np.int32)
    pixels, notes = shown(explainer, Image.fromarray(grey))  # 32 bits, with the values of 8
    assert np.array_equal(pixels[..., 1], grey) and any("taken for 0 to 255" in note for note in notes)
    _, notes = shown(explainer, saved(picture.convert("CMYK"), "TIFF"))
    assert any("(CMYK) are converted to RGB" in note for note in notes)
    layered = picture.convert("RGBA")
    layered.putalpha(128)
    (by_colour, _), (multiplied, _) = (shown(explainer, layered.convert(mode)) for mode in ("RGBA", "RGBa"))
    assert np.abs(by_colour.astype(int) - multiplied).max() <= 2
    clear = np.dstack([PIXELS, np.where(np.arange(64) < 32, 255, 0) * np.ones((64, 1))]).astype(np.uint8)
    pixels, notes = shown(explainer, clear)
    assert np.array_equal(pixels[:, :32], PIXELS[:, :32]) and (pixels[:, 32:] == 255).all()
    assert any("ransparent pixels" in note for note in notes)


def test_pictures_are_turned_upright(explainer: ap.Explainer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels, notes = shown(explainer, saved(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert np.array_equal(pixels, np.rot90(PIXELS, -1))
    assert any("turned upright" in note for note in notes)


def test_one_frame_of_an_animation_is_read(explainer: ap.Explainer) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    pixels, notes = shown(explainer, data)
    assert np.array_equal(pixels, PIXELS)
    assert any("holds 2 pictures; number 1 is read" in note for note in notes)
    chosen = Image.open(io.BytesIO(data))
    chosen.seek(1)
    pixels, notes = shown(explainer, chosen)
    assert np.array_equal(pixels, 255 - PIXELS) and chosen.tell() == 1
    assert any("number 2 is read" in note for note in notes)


def _huge(width: int, height: int) -> bytes:
    """A PNG file that says it has this many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_damaged_and_dangerous_files_are_refused(explainer: ap.Explainer, tmp_path: Path) -> None:
    whole = saved(Image.fromarray(PIXELS), "PNG")
    for data, message in (
        (whole[: len(whole) // 2], "cannot be read"),
        (b"not a picture", "not a picture in a format"),
        (b"", "not a picture in a format"),
        (_huge(10_000, 10_000), "100,000,000 pixels; at most 50,000,000"),
        (_huge(60_000, 60_000), "is too large"),
        (tmp_path, "is a folder"),
        (str(tmp_path / "gone.png"), "There is no picture"),
    ):
        with pytest.raises(ap.InputError, match=message):
            shown(explainer, data)
    with pytest.raises(ap.InputError, match="cannot be read"):  # the limit can be raised, and the rest is wrong
        shown(explainer, _huge(10_000, 10_000), max_pixels=200_000_000)
    (tmp_path / "text.png").write_text("a text")
    with pytest.raises(ap.InputError, match="text.png is not a picture"):
        shown(explainer, tmp_path / "text.png")


def test_tokens_that_a_processor_writes_itself_are_refused() -> None:
    """Gemma 3 has one placeholder, and writes another token as often as a picture needs it."""
    pair = (tiny_pictures.model("gemma3"), tiny_pictures.processor("gemma3"))
    with (
        ap.Explainer(pair, backend="torch", progress=False) as explainer,
        pytest.raises(ap.InputError, match="which the processor writes itself.* Write <start_of_image> in the place"),
    ):
        explainer.attribute(ap.ImageText(PIXELS, "<start_of_image><image_soft_token> what"), "so")


@pytest.mark.parametrize("bare", [PIXELS, Image.fromarray(PIXELS)])
def test_a_bare_picture_is_not_a_prompt(explainer: ap.Explainer, bare: Any) -> None:
    with pytest.raises(ap.InputError, match=r"pass ap.ImageText\(picture, text\)"):
        explainer.attribute(bare, " red")


def test_what_a_processor_cuts_off_is_noted() -> None:
    processor = copy.deepcopy(tiny_pictures.processor("llava"))
    processor.image_processor.do_center_crop = True
    processor.image_processor.size = {"shortest_edge": 64}
    processor.image_processor.crop_size = {"height": 64, "width": 64}
    wide = np.concatenate([PIXELS, PIXELS], axis=1)
    with ap.Explainer((tiny_pictures.model("llava"), processor), backend="torch", progress=False) as explainer:
        for picture, cut in ((wide, True), (PIXELS, False)):
            result = explainer.attribute(ap.ImageText(picture, "Why?", segments="grid:1x4"), " so", method="ablation")
            assert any("cuts off 50.0 % of the picture" in note for note in result.provenance.notes) is cut
            assert ([round(value, 5) for value in result.values[:4:3]] == [0.0, 0.0]) is cut


def test_a_model_of_text_refuses_pictures() -> None:
    from apportion.testing.explainers import tiny_explainer

    with tiny_explainer(backend="torch") as explainer, pytest.raises(ap.CapabilityError, match="reads text only"):
        explainer.attribute(ap.ImageText(PIXELS, "a"), " b")


# --- the shell --------------------------------------------------------------------------------------------------------


def test_pictures_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "scene.png"
    Image.fromarray(PIXELS).save(path)
    common = ["attribute", "--model", "shapes", "--image", str(path), QUESTION, "--method", "ablation"]
    assert main([*common, "--segments", "grid:2x2", "--fill", "blur:4", "--json"]) == 0
    out = capsys.readouterr().out
    assert '"row 1, column 1"' in out and '"fill": "blur:4"' in out
    for wrong, message in (
        (["--segments", "grid:2", "--segments", "grid:3"], "2 times for 1 picture"),
        (["--document", str(path)], "does not go together with --image"),
        (["--segments", "gird:2"], "Did you mean 'grid'"),
    ):
        assert main([*common, *wrong]) != 0
        assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_dataset_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pixels in (("one.png", PIXELS), ("two.png", np.rot90(PIXELS))):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "data.csv").write_text(
        f"prompt,image,target\n{QUESTION},one.png,red\n{QUESTION},two.png,red\nx,no.png,red\n"
    )
    options = ["--model", "shapes", "--image-column", "image", "--segments", "grid:4x4", "--method", "ablation"]
    run = ["run", str(tmp_path / "data.csv"), "--out", str(tmp_path / "out"), *options, "--skip-errors"]
    assert main(run) != 0, "a picture is missing"
    assert "There is no picture" in capsys.readouterr().err
    from apportion.results.run_folder import ResultsFolder

    lines = [line for line in ResultsFolder(tmp_path / "out").whole_lines() if "result" in line]
    assert len(lines) == 2
    best = [int(np.argmax(line["result"]["values"][:16])) for line in lines]
    assert best == [1, 8], "the second picture is turned by a quarter"
    assert all(line["result"]["pictures"][0]["name"].endswith(".png") for line in lines)
    Image.fromarray(255 - PIXELS).save(tmp_path / "one.png")
    capsys.readouterr()
    assert main(run) != 0
    assert "changed" in capsys.readouterr().err, "results of other pictures are not mixed with these"
