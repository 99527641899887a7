"""The contract of input adapters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from apportion.errors import InputError
from apportion.explainer import Explainer
from apportion.hooks.manager import load_plugins
from apportion.protocols.features import Feature
from apportion.protocols.inputs import Alternatives, InputAdapter
from apportion.protocols.pictures import Picture
from apportion.protocols.row import Media, ModelInput
from apportion.rendering.context import AdaptContext
from apportion.testing import tiny, tiny_pictures
from apportion.testing.contract import Contract
from apportion.testing.explainers import tiny_explainer
from apportion.testing.randomness import only_its_own_generator

__all__ = ["UNICODE", "InputContract"]

UNICODE = {
    "accents": "Ça va très bien, merci",
    "combining": "e\u0301te\u0301 nai\u0308f cafe\u0301",
    "chinese": "我爱北京。 你呢？ 我很好。",
    "arabic": "مرحبا بالعالم، كيف حالك؟",
    "emoji": "I 🎉🎉 love 👩‍👩‍👧 it 🙂",
    "spaces": "  two  spaces\tand a\u00a0tab  ",
    "quotes": 'it\'s "so" {braces} \\ % and <b>tags</b> [x]',
    "lines": "one\n\ntwo\r\nthree\n",
}
"""Texts that break careless splitting and joining."""


class InputContract(Contract):
    """Contract of input adapters. Subclass it, and provide fixtures ``prompt`` and ``full_text``.

    Override ``of_text`` if a prompt can contain any text. For prompts with pictures, set ``picture_family``, and
    provide the fixture ``shown_text`` if views show less than the model reads.

    Attributes:
        plugins: modules or objects with your hooks; not needed for installed plugins.
        overlap: several features may share a span of the text, which stays if only one of them is absent.
        verbatim: the text of a feature appears literally in the prompt.
        writes_special_tokens: the prompt already contains the tokenizer's special tokens, like the output of a chat
            template, and none are added.
        picture_family: tiny model that reads the prompts, one of ``tiny_pictures.FAMILIES``; empty for prompts without
            pictures.
    """

    plugins: ClassVar[Sequence[object]] = ()
    overlap: ClassVar[bool] = False
    verbatim: ClassVar[bool] = True
    writes_special_tokens: ClassVar[bool] = False
    picture_family: ClassVar[str] = ""

    @pytest.fixture
    def prompt(self) -> object:
        """One of your prompts, with two or more features and with words that occur only once."""
        raise NotImplementedError("Define a fixture `prompt` that returns one of your prompts.")

    @pytest.fixture
    def full_text(self) -> str:
        """The text that the model reads when all its features are present."""
        raise NotImplementedError(
            "Define a fixture `full_text`: the text that the model reads with all features present."
        )

    @pytest.fixture
    def shown_text(self, full_text: str) -> str:
        """The text of the segments, such as ``full_text`` without the placeholders of pictures."""
        return full_text

    def of_text(self, text: str) -> tuple[object, str] | None:
        """Make a prompt with the given text, and the text that the model reads; ``None`` if that is not possible."""
        return None

    def context(self, *, adds_start: bool = False, seed: int = 0) -> AdaptContext:
        """The context in which prompts are adapted: the tokenizer of a tiny model, and its processor if it has one."""
        if not self.picture_family:
            return AdaptContext(tiny.tokenizer(adds_start=adds_start), seed)
        processor = tiny_pictures.processor(self.picture_family)
        processor = _adding_start(processor) if adds_start else processor
        return AdaptContext(processor.tokenizer, seed, processor=processor)

    def explainer(self) -> Explainer:
        """An explainer of a tiny model that reads the prompts."""
        if not self.picture_family:
            return tiny_explainer(plugins=self.plugins)
        pair = tiny_pictures.model(self.picture_family), self.context().processor
        return Explainer(pair, plugins=self.plugins, progress=False)

    def adapt(self, prompt: object, *, adds_start: bool = False, seed: int = 0) -> InputAdapter | None:
        """Adapt a prompt with the plugins."""
        plugins = load_plugins(self.plugins)
        context = replace(self.context(adds_start=adds_start, seed=seed), make=plugins.make)
        found: InputAdapter | None = plugins.hook.apportion_adapt_input(prompt=prompt, context=context)
        return found

    def adapted(self, prompt: object, *, adds_start: bool = False, seed: int = 0) -> InputAdapter:
        """Adapt a prompt that the plugin must claim."""
        found = self.adapt(prompt, adds_start=adds_start, seed=seed)
        assert found is not None, (
            f"No plugin adapts {prompt!r:.80}: apportion_adapt_input returned None. Add your module to `plugins`."
        )
        return found

    def test_it_claims_its_prompts_only(self, prompt: object) -> None:
        """The plugin adapts its own prompts, and leaves others to other plugins."""
        self.adapted(prompt)
        assert self.adapt(object()) is None, "It claims any object. Return None for prompts that are not yours."

    def test_features_are_named(self, prompt: object) -> None:
        """Every feature has a name, and names are distinct."""
        features = self.adapted(prompt).features
        assert isinstance(features, tuple), f"features must be a tuple; they are a {type(features).__name__}."
        assert features, "There are no features."
        assert all(isinstance(feature, Feature) for feature in features), f"Not all are Features: {features!r:.200}"
        names = [feature.name for feature in features]
        assert all(names), f"A feature has no name: {names}"
        assert len(set(names)) == len(names), f"Names must be distinct; they are {names}."
        broken = [name for name in names if "\n" in name.strip()]
        assert not broken, f"Names must be one line, for tables; these are not: {broken}"
        notes = getattr(self.adapted(prompt), "notes", ())
        assert isinstance(notes, tuple | list), f"`notes` must be a tuple of sentences; it is {notes!r}."
        assert all(isinstance(note, str) for note in notes), f"`notes` must be sentences; they are {notes!r}."

    @pytest.mark.parametrize("adds_start", [False, True], ids=["plain", "start-token"])
    def test_all_present_is_the_prompt(self, prompt: object, full_text: str, adds_start: bool) -> None:
        """Exact reassembly: all features present give the token ids of the whole text, special tokens included."""
        self.check_reassembly(prompt, full_text, adds_start)

    def test_absent_means_absent(self, prompt: object, full_text: str) -> None:
        """An absent feature is removed or replaced, and everything else is still there."""
        adapter = self.adapted(prompt)
        for i, feature in enumerate(adapter.features if self.verbatim else ()):
            for part in () if i in _regions(adapter) else _parts(feature):
                assert part in full_text, f"The text {part!r} of {feature.name!r} is not in {full_text!r}."
        self.check_absence(prompt, full_text)

    def test_pictures_lose_their_regions(self, prompt: object) -> None:
        """If there are pictures, an absent region changes its own pixels, and nothing else changes a picture."""
        adapter = self.adapted(prompt)
        pictures = tuple(getattr(adapter, "pictures", ()))
        if not pictures:
            pytest.skip("the adapter has no `pictures`")
        count = len(adapter.features)
        numbers = [number for picture in pictures for number in picture.regions]
        assert len(set(numbers)) == len(numbers), f"Features are regions of two pictures: {sorted(numbers)}."
        assert set(numbers) <= set(range(count)), f"{count} features, but the regions have the numbers {numbers}."
        full = _media(adapter, torch.ones(1, count, dtype=torch.bool))
        assert len(full) == len(pictures), f"{len(pictures)} pictures, but the model reads {len(full)}."
        for i, feature in enumerate(adapter.features):
            there = torch.ones(1, count, dtype=torch.bool)
            there[0, i] = False
            for picture, before, after in zip(pictures, full, _media(adapter, there), strict=True):
                _check_picture(picture, i, feature, before, after)

    def test_rows_are_rendered_one_by_one(self, prompt: object) -> None:
        """A coalition renders the same in any batch and each time; the order of rows and the mask are preserved."""
        adapter = self.adapted(prompt)
        mask = _masks(len(adapter.features))
        before = mask.clone()
        with only_its_own_generator():
            together = list(adapter.render(mask))
        assert len(together) == len(mask), f"{len(mask)} coalitions gave {len(together)} inputs."
        assert torch.equal(mask, before), "render() changed the mask."
        alone = [adapter.render(row[None])[0] for row in mask]
        assert together == alone, "A coalition is rendered differently when it is alone."
        assert list(adapter.render(mask.flip(0))) == together[::-1], "The order of the rows is lost."
        assert list(adapter.render(mask[:0])) == [], "Zero coalitions must give zero inputs."

    def test_inputs_can_be_scored(self, prompt: object) -> None:
        """Token ids are in the vocabulary, and there are ``draws`` alternatives."""
        adapter, vocabulary = self.adapted(prompt), len(self.context().tokenizer)
        draws = getattr(adapter, "draws", 1)
        for item in adapter.render(_masks(len(adapter.features))):
            assert isinstance(item, ModelInput | Alternatives), f"render() returned {item!r:.80}, not a ModelInput."
            inputs = item.inputs if isinstance(item, Alternatives) else (item,)
            assert len(inputs) == draws, f"{len(inputs)} alternatives, but the adapter's `draws` is {draws}."
            for ids in (each.ids for each in inputs):
                assert all(type(i) is int and 0 <= i < vocabulary for i in ids), f"Not all are token ids: {ids}"

    def test_the_seed_decides_everything(self, prompt: object) -> None:
        """The same prompt and seed give the same features and inputs."""
        first, again = (self.adapted(prompt, seed=3) for _ in range(2))
        mask = _masks(len(first.features))
        assert first.features == again.features
        assert list(first.render(mask)) == list(again.render(mask)), "The same seed rendered different inputs."

    def test_segments_show_the_prompt(self, prompt: object, shown_text: str) -> None:
        """If there are segments, they are the whole prompt in order, with every feature that is not a region."""
        adapter = self.adapted(prompt)
        segments = tuple(getattr(adapter, "segments", ()))
        if not segments:
            pytest.skip("the adapter has no `segments`, so views show no highlighted prompt")
        shown = "".join(segment.text for segment in segments)
        assert shown == shown_text, f"The segments read {shown!r}; the prompt is {shown_text!r}."
        numbers = {segment.feature for segment in segments} - {None}
        assert numbers == set(range(len(adapter.features))) - _regions(adapter), (
            f"{len(adapter.features)} features, but the segments contain those numbered {sorted(map(str, numbers))}."
        )
        for i, feature in enumerate(adapter.features):
            own = " ".join(segment.text for segment in segments if segment.feature == i)
            for part in () if i in _regions(adapter) else _parts(feature):
                assert part in own, f"The segments of {feature.name!r} read {own!r}; its text is {feature.text!r}."

    def test_levels_nest(self, prompt: object) -> None:
        """If there are levels, they cover all features, and each splits the groups of the one before."""
        adapter = self.adapted(prompt)
        count = len(adapter.features)
        levels = tuple(getattr(adapter, "levels", ()))
        outer: Sequence[int] = [0] * count
        for level in levels:
            what = f"The level {level.name!r}"
            assert len(level.groups) == count, f"{what} has groups for {len(level.groups)} of {count} features."
            numbers = list(dict.fromkeys(level.groups))
            assert numbers == list(range(len(numbers))), f"{what} must number its groups in order: {level.groups}"
            assert len(set(outer)) < len(numbers) < count, (
                f"{what} has {len(numbers)} groups; the level before it has {len(set(outer))}, and there are {count} "
                "features. Omit a level that is no coarser than the next."
            )
            assert len(set(zip(level.groups, outer, strict=True))) == len(numbers), (
                f"{what} has a group that spans several groups of the level before it."
            )
            assert len(set(level.texts)) == len(numbers), (
                f"{what} has {len(numbers)} groups and the texts {level.texts}; each group needs a different text."
            )
            outer = level.groups

    @pytest.mark.parametrize("name", UNICODE)
    def test_any_language(self, name: str) -> None:
        """Exact reassembly and absence with accents, scripts without spaces, emoji, and unusual spaces."""
        made = self.of_text(UNICODE[name])
        if made is None:
            pytest.skip("`of_text` is not given")
        self.check_reassembly(*made, adds_start=False)
        self.check_absence(*made)

    def test_text_that_is_no_unicode_is_refused(self) -> None:
        """A lone surrogate, from bytes in another encoding, raises an ``InputError``."""
        made = self.of_text("one")
        if made is None:
            pytest.skip("`of_text` is not given")
        with pytest.raises(InputError):
            adapter = self.adapted(self.of_text("one \ud800 two")[0])  # type: ignore[index]
            adapter.render(torch.ones(1, len(adapter.features), dtype=torch.bool))

    def test_it_runs_on_a_model(self, prompt: object) -> None:
        """The whole pipeline works on a tiny model."""
        with self.explainer() as explainer:
            result = explainer.attribute(prompt, " x", method="ablation")
        assert result.feature_names == tuple(feature.name for feature in self.adapted(prompt).features)

    def check_reassembly(self, prompt: object, full_text: str, adds_start: bool) -> None:
        """Check that all features present give exactly the token ids of the text."""
        adapter = self.adapted(prompt, adds_start=adds_start)
        tokenizer = self.context(adds_start=adds_start).tokenizer
        (wanted,) = AdaptContext(tokenizer).encode([full_text], special_tokens=not self.writes_special_tokens)
        (item,) = adapter.render(torch.ones(1, len(adapter.features), dtype=torch.bool))
        for each in item.inputs if isinstance(item, Alternatives) else (item,):
            assert each.ids == wanted, (
                f"With all features present, the model reads {tokenizer.decode(list(each.ids))!r}; the prompt is "
                f"{tokenizer.decode(list(wanted))!r}."
            )

    def check_absence(self, prompt: object, full_text: str) -> None:
        """Check the prompt without each feature."""
        adapter = self.adapted(prompt)
        features, tokenizer = adapter.features, self.context().tokenizer
        for i, feature in enumerate(features):
            mask = torch.ones(1, len(features), dtype=torch.bool)
            mask[0, i] = False
            for text in _texts(adapter, mask, tokenizer):
                if i in _regions(adapter):
                    assert text == full_text, f"Without the region {feature.name!r}, the text is another one: {text!r}"
                elif feature.text != feature.baseline:
                    assert text != full_text, f"Without the feature {feature.name!r}, the prompt is unchanged."
                _assert_gone(feature, text, full_text, overlap=self.overlap)
                for other in features[:i] + features[i + 1 :]:
                    _assert_there(other, feature, text, full_text)
        if hasattr(adapter, "segments") and not self.overlap:
            shown = "".join(segment.text for segment in getattr(adapter, "segments", ()))
            self.check_few(adapter, around=full_text.replace(shown, " ") if shown and shown in full_text else "")

    def check_few(self, adapter: InputAdapter, around: str = "") -> None:
        """Check that with no feature, or with only one, the others are not read, except in the text around them."""
        features, tokenizer = adapter.features, self.context().tokenizer
        fixed = around + "".join(s.text for s in getattr(adapter, "segments", ()) if s.feature is None)
        baselines = " ".join(feature.baseline for feature in features)
        alone = torch.eye(len(features), dtype=torch.bool)
        for row in torch.cat([~alone[:1] & alone[:1], alone]):
            there = " ".join(f.text for f, on in zip(features, row.tolist(), strict=True) if on)
            absent = [f for f, on in zip(features, row.tolist(), strict=True) if not on]
            for text in _texts(adapter, row[None], tokenizer):
                for feature in absent:
                    for part in _parts(feature):
                        left = part in text and part not in f"{fixed}{there}" and part not in baselines
                        assert not left, (
                            f"With only {there!r} present, {part!r} of {feature.name!r} is still read: {text!r}"
                        )


def _masks(n: int) -> torch.Tensor:
    """The full, the empty and random coalitions, one of them twice."""
    draw = torch.Generator().manual_seed(n)
    drawn = torch.rand(6, n, generator=draw) < 0.5
    ends = torch.tensor([[True] * n, [False] * n])
    return torch.cat([ends, drawn, drawn[:1]])


def _texts(adapter: InputAdapter, mask: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    (item,) = adapter.render(mask)
    for each in item.inputs if isinstance(item, Alternatives) else (item,):
        yield str(tokenizer.decode(list(each.ids)))


def _adding_start(processor: Any) -> Any:
    """A processor whose tokenizer adds a start token before prompts."""
    made = copy.copy(processor)
    made.tokenizer = copy.deepcopy(processor.tokenizer)
    adding: Any = tiny.tokenizer(adds_start=True)
    made.tokenizer.backend_tokenizer.post_processor = adding.backend_tokenizer.post_processor
    return made


def _regions(adapter: InputAdapter) -> set[int]:
    """Numbers of the features that are regions of pictures."""
    return {number for picture in getattr(adapter, "pictures", ()) for number in picture.regions}


def _media(adapter: InputAdapter, mask: torch.Tensor) -> tuple[Media, ...]:
    (item,) = adapter.render(mask)
    return (item.inputs[0] if isinstance(item, Alternatives) else item).media


def _check_picture(picture: Picture, number: int, feature: Feature, before: Media, after: Media) -> None:
    """Check a picture without one feature."""
    mask, size = picture.regions.get(number), (picture.height, picture.width)
    old, new = before.content(), after.content()
    assert old.shape == new.shape == (*size, 3), f"{picture.name} has {size} pixels, but the model reads {new.shape}."
    changed = (old != new).any(-1)
    if mask is None:
        assert before == after, f"Without {feature.name!r}, which is not a region of {picture.name}, it changes."
        return
    assert mask.shape == size, f"The region {feature.name!r} has the shape {mask.shape}; {picture.name} has {size}."
    assert changed.any(), f"Without the region {feature.name!r}, {picture.name} is unchanged."
    assert not changed[~mask].any(), f"Without the region {feature.name!r}, other pixels of {picture.name} change."


def _parts(feature: Feature) -> list[str]:
    """The spans of a feature, without surrounding white space; a group has several."""
    stretches = feature.text.split(" … ") if feature.members else [feature.text]
    return [stretch.strip() for stretch in stretches if stretch.strip()]


def _assert_gone(feature: Feature, text: str, full_text: str, *, overlap: bool) -> None:
    for part in _parts(feature):
        # A token may be part of a character, which cannot be found in the text.
        if part in feature.baseline or overlap or part not in full_text:
            continue
        assert text.count(part) < full_text.count(part), (
            f"{feature.name!r} is absent, but {part!r} is still read in {text!r}."
        )


def _assert_there(other: Feature, absent: Feature, text: str, full_text: str) -> None:
    for part in _parts(other):
        goes = sum(stretch.count(part) for stretch in _parts(absent))
        assert text.count(part) >= full_text.count(part) - goes, (
            f"Only {absent.name!r} is absent, but {part!r} of {other.name!r} is missing too: {text!r}"
        )
