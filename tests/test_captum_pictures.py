"""Captum's ``ImageMaskInput`` with models that read pictures, beside Captum."""

from __future__ import annotations

from typing import Any

import captum.attr as theirs
import numpy as np
import pytest
import torch
from PIL import Image

import apportion.captum as ours
from apportion.rendering.picture_writer import PictureWriter, processed
from apportion.testing import tiny_pictures

PIXELS = tiny_pictures.picture(7)
LABELS = torch.tensor(np.kron([[0, 5], [2, 9]], np.ones((32, 32), int)))
LEFT, MIDDLE = torch.zeros(64, 64, dtype=torch.bool), torch.zeros(64, 64, dtype=torch.bool)
LEFT[:, :30], MIDDLE[:, 20:50] = True, True
TARGET = " a red one"


def arguments_of(family: str) -> Any:
    """A user's function from a picture to a model's arguments."""
    processor = tiny_pictures.processor(family)
    text = PictureWriter(processor, [PIXELS]).before("What is this?")

    def function(image: Any) -> Any:
        found = dict(processed(processor, text, [image], return_tensors="pt"))
        found.pop("labels", None)
        return found

    return function


def scored(lib: Any, family: str, given: Any, **options: Any) -> Any:
    """Ablation of a picture with one of the two libraries."""
    model, tokenizer = tiny_pictures.model(family), tiny_pictures.processor(family).tokenizer
    wrapper = lib.LLMAttribution(lib.FeatureAblation(model), tokenizer)
    return wrapper.attribute(given, target=TARGET, **options), wrapper


@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma"])
@pytest.mark.parametrize("masks", [{"mask": LABELS}, {"mask_list": [LEFT, MIDDLE]}, {}], ids=["labels", "list", "none"])
def test_values_are_captums(family: str, masks: dict[str, Any]) -> None:
    function, results = arguments_of(family), []
    for lib in (theirs, ours):
        given = lib.ImageMaskInput(Image.fromarray(PIXELS), baseline=(9, 99, 199), processor_fn=function, **masks)
        result, wrapper = scored(lib, family, given, **({"forward_in_tokens": False} if lib is theirs else {}))
        results.append(result)
    assert results[1].input_tokens == results[0].input_tokens
    assert torch.allclose(results[1].token_attr, results[0].token_attr, atol=1e-4)
    assert torch.allclose(results[1].seq_attr, results[0].seq_attr, atol=1e-4)
    assert results[0].seq_attr.abs().max() > 1e-2
    (explainer,) = wrapper.explainers._opened.values()
    assert explainer is not None and explainer.session.encoded_media > 0, "not scored in batches"


def test_families_that_captum_cannot_score_are_scored() -> None:
    """With Qwen2.5-VL, Captum fails on the types of tokens, which do not reach over the target."""
    function = arguments_of("qwen2_5_vl")
    given = theirs.ImageMaskInput(Image.fromarray(PIXELS), LABELS, processor_fn=function)
    with pytest.raises(Exception):  # noqa: B017 - whatever the model raises
        scored(theirs, "qwen2_5_vl", given, forward_in_tokens=False)
    result, _ = scored(ours, "qwen2_5_vl", ours.ImageMaskInput(Image.fromarray(PIXELS), LABELS, processor_fn=function))
    assert result.seq_attr.abs().min() > 1e-4


def test_functions_take_turns_with_one_opened_model() -> None:
    model, tokenizer = tiny_pictures.model("llava"), tiny_pictures.processor("llava").tokenizer
    wrapper = ours.LLMAttribution(ours.FeatureAblation(model), tokenizer)
    function = arguments_of("llava")
    found = [
        wrapper.attribute(
            ours.ImageMaskInput(Image.fromarray(pixels), LABELS, processor_fn=lambda image: function(image)),
            target=TARGET,
        ).seq_attr
        for pixels in (PIXELS, 255 - PIXELS, PIXELS)
    ]
    assert len(wrapper.explainers._opened) == 1
    assert torch.allclose(found[0], found[2]) and not torch.allclose(found[0], found[1], atol=1e-3)


class Darker(ours.ImageMaskInput):
    """Makes model inputs of its own."""

    def to_model_input(self, perturbed_tensor: torch.Tensor | None = None) -> Any:
        found = dict(super().to_model_input(perturbed_tensor))
        return found | {"pixel_values": 0.5 * found["pixel_values"]}


def test_inputs_of_a_users_class_are_scored_one_by_one() -> None:
    function = arguments_of("llava")
    results = [
        scored(ours, "llava", kind(Image.fromarray(PIXELS), LABELS, processor_fn=function), forward_in_tokens=False)[0]
        for kind in (Darker, ours.ImageMaskInput)
    ]
    assert not torch.allclose(results[0].seq_attr, results[1].seq_attr, atol=1e-3)
