"""Defects seeded into extensions, each under the contract of its kind: every class here must fail.

Run by ``test_mutants.py``; pytest does not collect this file by itself. ``TestControl…`` are the same without a
defect, and must pass: they show that a mutant fails for its defect.
"""

from __future__ import annotations

import copy
import dataclasses
import html
import itertools

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import (
    BackendContract,
    FillContract,
    GradientTimesInput,
    InputContract,
    MethodContract,
    MetricContract,
    SamplerContract,
    SegmenterContract,
    TargetContract,
    VisualizerContract,
)
from apportion.testing.echo import EchoBackend, EchoSession, echo_logits, echo_spec
from apportion.testing.pictures import sample_pictures
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.seq2seq import Seq2SeqSession
from apportion_backends.torch.session import TorchSession
from apportion_plugins.inputs.image_text import ImageTextAdapter
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.shapley import ExactShapley
from apportion_plugins.pictures.fills import Blur, Inpaint, LocalMean, Mean, Noise
from apportion_plugins.pictures.segmenters import Grid
from apportion_plugins.samplers.leverage import LeverageSampler
from apportion_plugins.samplers.permutation import PermutationSampler
from apportion_plugins.samplers.tables import all_coalitions
from apportion_plugins.targets.likelihood import LogProb


def method_contract(mutant, **attributes):
    return type("Contract", (MethodContract,), {"method": pytest.fixture(lambda self: mutant()), **attributes})


# --- methods


class HalfWeights(ExactShapley):
    """Wrong weights: every coalition counts the same, and it still says Shapley."""

    def run(self, game, *, budget, rng):
        v = game.values(all_coalitions(game.n_features))
        rows = torch.arange(len(v))
        parts = [v[rows[rows >> i & 1 == 1]] - v[rows[rows >> i & 1 == 0]] for i in range(game.n_features)]
        return ap.Estimate(torch.stack([part.mean(0) for part in parts]))


class TestWrongWeights(method_contract(HalfWeights, sampled=False)):
    pass


class LostSeed(PermutationShapley):
    def run(self, game, *, budget, rng):
        return super().run(game, budget=budget, rng=torch.Generator().manual_seed(7))


class TestLostSeed(method_contract(LostSeed)):
    pass


class GlobalSeed(PermutationShapley):
    def run(self, game, *, budget, rng):
        return super().run(game, budget=budget, rng=torch.Generator().manual_seed(int(torch.randint(10**6, ()))))


class TestGlobalSeed(method_contract(GlobalSeed)):
    pass


class OffByOne(Ablation):
    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        return ap.Estimate(found.values.roll(1, 0))


class TestOffByOneFeature(method_contract(OffByOne, sampled=False)):
    pass


class Overrun(Ablation):
    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        game.values(torch.zeros(1, game.n_features, dtype=torch.bool))
        return found


class TestBudgetOverrun(method_contract(Overrun, sampled=False)):
    pass


class SwappedBaseline(Ablation):
    """Present and absent mixed up: what a feature adds to nothing, with the sign reversed."""

    def run(self, game, *, budget, rng):
        flipped = ap.Game.from_function(lambda mask: game.values(~mask)[:, 0], game.n_features)
        return super().run(flipped, budget=budget, rng=rng)


class TestSwappedBaseline(method_contract(SwappedBaseline, sampled=False)):
    pass


class SmallErrors(PermutationShapley):
    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        return dataclasses.replace(found, std_error=None if found.std_error is None else found.std_error / 3)


class TestErrorsTooSmall(method_contract(SmallErrors)):
    pass


class FirstOutputOnly(Ablation):
    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        return ap.Estimate(found.values[:, :1].expand(-1, game.n_outputs))


class TestFirstOutputForAll(method_contract(FirstOutputOnly, sampled=False)):
    pass


class LateRefusal(ExactShapley):
    def run(self, game, *, budget, rng):
        game.values(torch.ones(1, game.n_features, dtype=torch.bool))
        return super().run(game, budget=budget, rng=rng)


class TestRefusesAfterAsking(method_contract(LateRefusal, sampled=False)):
    pass


class NotCentred(Ablation):
    """A share of the score itself instead of a difference."""

    estimand = "share"

    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        full = game.values(torch.ones(1, game.n_features, dtype=torch.bool))
        return ap.Estimate(found.values + full / game.n_features)


class TestNotCentred(method_contract(NotCentred, sampled=False)):
    pass


class FirstFeatureFirst(PermutationShapley):
    """Orders that all begin with feature 0."""

    estimand = "something like Shapley"

    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng).values
        ends = torch.zeros(2, game.n_features, dtype=torch.bool)
        ends[1, 0] = True
        v = game.values(ends)
        return ap.Estimate(torch.cat([(v[1] - v[0])[None], found[1:]]))


class TestFirstFeatureIsSpecial(method_contract(FirstFeatureFirst)):
    pass


class Remembers(Ablation):
    def __init__(self):
        self.calls = 0

    def run(self, game, *, budget, rng):
        self.calls += 1
        found = super().run(game, budget=budget, rng=rng)
        return ap.Estimate(found.values * (1 + 1e-3 * self.calls))


class TestRemembersEarlierRuns(method_contract(Remembers, sampled=False)):
    pass


class ForgetsErrors(PermutationShapley):
    """Calls what it has sampled exact."""

    def run(self, game, *, budget, rng):
        return ap.Estimate(super().run(game, budget=budget, rng=rng).values)


class TestSampledValuesCalledExact(method_contract(ForgetsErrors)):
    pass


class IgnoresBudget(PermutationShapley):
    def run(self, game, *, budget, rng):
        return super().run(game, budget=min(budget or 40, 40), rng=rng)


class TestBudgetNotSpent(method_contract(IgnoresBudget)):
    pass


class Undocumented(Ablation):
    def run(self, game, *, budget, rng, depth=3):
        return super().run(game, budget=budget, rng=rng)


class TestUndocumentedOption(method_contract(Undocumented, sampled=False)):
    pass


class OneByOne(Ablation):
    def run(self, game, *, budget, rng):
        for i in range(game.n_features):
            mask = torch.ones(1, game.n_features, dtype=torch.bool)
            mask[0, i] = False
            game.values(mask)
        return super().run(game, budget=budget, rng=rng)


class TestAsksOneByOne(method_contract(OneByOne, sampled=False)):
    pass


class Seeds(PermutationShapley):
    def run(self, game, *, budget, rng):
        torch.manual_seed(5)
        return super().run(game, budget=budget, rng=rng)


class TestSeedsTheWorld(method_contract(Seeds)):
    pass


class LargeErrors(PermutationShapley):
    def run(self, game, *, budget, rng):
        found = super().run(game, budget=budget, rng=rng)
        return dataclasses.replace(found, std_error=None if found.std_error is None else found.std_error * 3)


class TestErrorsTooLarge(method_contract(LargeErrors)):
    pass


class Single(Ablation):
    def run(self, game, *, budget, rng):
        return ap.Estimate(super().run(game, budget=budget, rng=rng).values.float())


class TestSinglePrecision(method_contract(Single, sampled=False)):
    pass


class Positional(Ablation):
    def run(self, game, depth=1, *, budget, rng):
        return super().run(game, budget=budget, rng=rng)


class TestOptionBeforeTheStar(method_contract(Positional, sampled=False)):
    pass


class TestLooksInsideUnderTheWrongContract(method_contract(GradientTimesInput, sampled=False)):
    pass


# --- samplers


class SamplerMutant(SamplerContract):
    change = staticmethod(lambda drawn: drawn)
    seeded = True

    @pytest.fixture
    def sampler(self):
        outer = self

        class Mutant:
            """A changed permutation sampler."""

            def sample(self, n_features, budget, rng):
                rng = rng if outer.seeded else torch.Generator().manual_seed(1)
                return outer.change(PermutationSampler().sample(n_features, budget, rng))

        return Mutant()


class TestSamplerLostSeed(SamplerMutant):
    seeded = False


class TestSamplerOverBudget(SamplerMutant):
    change = staticmethod(
        lambda d: ap.Coalitions(
            torch.cat([d.mask, ~d.mask.roll(1, 1) ^ d.mask]), torch.ones(2 * len(d.mask), dtype=torch.float64)
        )
    )


class TestSamplerNegativeWeights(SamplerMutant):
    change = staticmethod(lambda d: ap.Coalitions(d.mask, d.weight - 1.5))


class TestSamplerForgetsAFeature(SamplerMutant):
    change = staticmethod(lambda d: ap.Coalitions(d.mask & (torch.arange(d.mask.shape[1]) > 0), d.weight))


class TestSamplerForSomethingElse(SamplerContract):
    @pytest.fixture
    def sampler(self):
        class Mutant(LeverageSampler):
            """Draws for Shapley values, and declares Banzhaf values."""

            estimands = ("Banzhaf value",)

        return Mutant()


# --- target functions


class TargetMutant(TargetContract):
    change = None

    @pytest.fixture
    def target_fn(self):
        outer = self

        class Mutant(LogProb):
            """A changed log-probability."""

            def __call__(self, scores, target):
                return outer.change(scores, super().__call__(scores, target))

        return Mutant()

    def expected(self, logits, target):
        each = [row.log_softmax(-1)[token] for row, token in zip(logits, target.ids, strict=True)]
        return torch.stack([sum(each), *each])


class TestTargetLeaksAcrossRows(TargetMutant):
    change = staticmethod(lambda scores, values: values - values.mean(0))


class TestTargetOffByOnePosition(TargetMutant):
    change = staticmethod(lambda scores, values: torch.cat([values[:, :1], values[:, 1:].roll(1, 1)], 1))


class TestTargetInPlace(TargetMutant):
    change = staticmethod(lambda scores, values: (scores.log_probs.mul_(2), values)[1])


class TestTargetHalfPrecision(TargetMutant):
    change = staticmethod(lambda scores, values: values.bfloat16())


class TextTargetMutant(TargetContract):
    """A function of texts, changed."""

    @staticmethod
    def change(lengths):
        return lengths[:, None]

    @pytest.fixture
    def target_fn(self):
        outer = self

        class Mutant:
            """Length of the text."""

            needs = ap.Needs.TEXT

            def __call__(self, scores, target):
                return outer.change(torch.tensor([float(len(text)) for text in scores.texts]).double())

        return Mutant()

    def expected_of_text(self, text, target):
        return len(text)


class TestTextTargetLeaksAcrossTexts(TextTargetMutant):
    change = staticmethod(lambda lengths: (lengths - lengths.mean())[:, None])


class TestTextTargetHasColumnsForTokens(TextTargetMutant):
    change = staticmethod(lambda lengths: lengths[:, None].repeat(1, 4))


class TestTextTargetCountsOneMore(TextTargetMutant):
    change = staticmethod(lambda lengths: lengths[:, None] + 1)


# --- inputs


class Words:
    """A prompt of words."""

    def __init__(self, text):
        self.text = text


class InputMutant(InputContract):
    separator, flipped, special, reversed_rows = None, False, "", False
    shifted, alone = 0, ""
    levels = ((0, 0, 1),)

    @pytest.fixture
    def prompt(self):
        return Words("one  two three")

    @pytest.fixture
    def full_text(self):
        return "one  two three"

    @property
    def plugins(self):
        outer = self

        class Adapter:
            def __init__(self, prompt, context):
                import re

                self.context = context
                self.words = re.findall(r"\s*\S+", prompt.text)
                self.features = tuple(ap.Feature(word.strip(), word) for word in self.words)
                count = len(self.words)
                self.segments = tuple(ap.Segment(w, (i + outer.shifted) % count) for i, w in enumerate(self.words))
                self.levels = [ap.Level("parts", groups, ("a", "b")) for groups in outer.levels]

            def render(self, mask):
                rows = (~mask if outer.flipped else mask).tolist()
                texts = []
                for row in rows[::-1] if outer.reversed_rows else rows:
                    kept = [w for w, on in zip(self.words, row, strict=True) if on]
                    plain = "".join(kept) if outer.separator is None else outer.separator.join(k.strip() for k in kept)
                    texts.append(outer.special + plain + (outer.alone if sum(row) == 1 else ""))
                return [ap.ModelInput(ids) for ids in self.context.encode(texts)]

        class Plugin:
            @ap.hookimpl
            def apportion_adapt_input(self, prompt, context):
                return Adapter(prompt, context) if isinstance(prompt, Words) else None

        return (Plugin(),)


class TestInputLosesSpaces(InputMutant):
    separator = " "


class TestInputSwapsPresentAndAbsent(InputMutant):
    flipped = True


class TestInputDoublesStartToken(InputMutant):
    special = "<s>"


class TestInputLosesTheOrderOfRows(InputMutant):
    reversed_rows = True


class TestInputColoursTheWrongWords(InputMutant):
    shifted = 1


class TestInputWrongWhenOneIsAlone(InputMutant):
    alone = " two three"


class TestInputLevelsAreNotCoarser(InputMutant):
    levels = ((0, 0, 1), (0, 1, 1))


class PictureInputMutant(InputContract):
    """Two halves of a picture, and words, changed."""

    picture_family = "llava"
    change = staticmethod(lambda item, row: item)
    regions = staticmethod(lambda picture: picture.regions)

    @pytest.fixture
    def prompt(self):
        return ap.ImageText(sample_pictures()["wide"], "one two three", segments="grid:1x2")

    @pytest.fixture
    def full_text(self):
        return "<image>" * 16 + "one two three"

    @pytest.fixture
    def shown_text(self):
        return "one two three"

    @property
    def plugins(self):
        outer = self

        class Adapter(ImageTextAdapter):
            def __init__(self, prompt, context):
                super().__init__(prompt, context)
                self.pictures = tuple(dataclasses.replace(one, regions=outer.regions(one)) for one in self.pictures)

            def render(self, mask):
                return [outer.change(one, row) for one, row in zip(super().render(mask), mask.tolist(), strict=True)]

        class Plugin:
            @ap.hookimpl
            def apportion_adapt_input(self, prompt, context):
                return Adapter(prompt, context) if isinstance(prompt, ap.ImageText) else None

        return (Plugin(),)


class TestInputShowsAbsentRegions(PictureInputMutant):
    """All pictures are whole."""

    whole = ap.Media.of("image", sample_pictures()["wide"], lambda: sample_pictures()["wide"])
    change = staticmethod(
        lambda item, row: dataclasses.replace(item, media=(TestInputShowsAbsentRegions.whole,) * len(item.media))
    )


class TestInputSwapsRegions(PictureInputMutant):
    regions = staticmethod(lambda picture: {0: picture.regions[1], 1: picture.regions[0]})


class TestInputDarkensPicturesWithoutWords(PictureInputMutant):
    """A picture changes if a word is absent."""

    @staticmethod
    def change(item, row):
        if all(row[2:]):
            return item
        darker = (item.media[0].content() // 2).astype(np.uint8)
        return dataclasses.replace(item, media=(ap.Media.of("image", darker),))


class TestInputLosesWordsWithRegions(PictureInputMutant):
    @staticmethod
    def change(item, row):
        return item if all(row[:2]) else dataclasses.replace(item, ids=item.ids[:-1])


# --- backends


class BackendMutant(BackendContract):
    """A torch session whose answers are changed."""

    session_class: type = TorchSession

    def changed(self, session, batch):
        return self.session_class.log_probs(session, batch)

    def close(self, session):
        self.session_class.close(session)

    session_members: dict[str, object] = {}
    backend_members: dict[str, object] = {}

    @pytest.fixture
    def backend(self):
        outer = self

        class Session(self.session_class):
            def log_probs(self, batch):
                return outer.changed(self, batch)

            def close(self):
                outer.close(self)

        for name, member in self.session_members.items():
            setattr(Session, name, member)

        class Mutant(TorchBackend):
            """Changed."""

            def load(self, spec, *, device=None, dtype=None, memory_budget=None):
                session = super().load(spec, device=device, dtype=dtype, memory_budget=memory_budget)
                session.__class__ = Session
                return session

        for name, member in self.backend_members.items():
            setattr(Mutant, name, member)
        return Mutant()


class TestBackendIgnoresPadding(BackendMutant):
    """Reads every row to its padded end."""

    def changed(self, session, batch):
        width = max(len(row.prompt) for row in batch.rows)
        rows = [dataclasses.replace(row, prompt=row.prompt + (0,) * (width - len(row.prompt))) for row in batch.rows]
        return super().changed(session, dataclasses.replace(batch, rows=tuple(rows)))


class TestBackendOffByOnePosition(BackendMutant):
    def changed(self, session, batch):
        return super().changed(session, batch).roll(1, 1)


class TestBackendStalePrefix(BackendMutant):
    """Keeps the first prefix that it saw."""

    def changed(self, session, batch):
        stale = vars(session).setdefault("stale", batch.prefix)
        if stale and len(stale) == batch.prefix_length:
            rows = [dataclasses.replace(row, prompt=stale + row.prompt[len(stale) :]) for row in batch.rows]
            batch = dataclasses.replace(batch, rows=tuple(rows))
        return super().changed(session, batch)


class TestBackendRoundsToHalf(BackendMutant):
    def changed(self, session, batch):
        return super().changed(session, batch).bfloat16().float()


class TestBackendRowsSeeEachOther(BackendMutant):
    def changed(self, session, batch):
        found = super().changed(session, batch)
        return found + 1e-2 * (batch.n_rows - 1)


class TestBackendDropsThePrefix(BackendMutant):
    def changed(self, session, batch):
        rows = [dataclasses.replace(row, prompt=row.prompt[batch.prefix_length :]) for row in batch.rows]
        return super().changed(session, dataclasses.replace(batch, rows=tuple(rows), prefix_length=0))


class TestBackendScoresAfterClose(BackendMutant):
    def close(self, session):
        pass


class TestBackendForgetsWhatItKeeps(BackendMutant):
    """Says that it keeps nothing, so that a plan reads too much, and counts it."""

    session_members = {"kept": None}


class TestBackendHasAnotherFingerprintEachTime(BackendMutant):
    session_members = {"fingerprint": lambda self: str(id(self))}


class TestBackendClaimsNothing(BackendMutant):
    backend_members = {"claims": lambda self, spec: False}


class TestBackendGradientOfHalf(BackendMutant):
    """Half of each embedding is cut off from the gradient."""

    dtypes = ("float64",)
    session_members = {
        "forward": lambda self, batch, **how: TorchSession.forward(
            self, dataclasses.replace(batch, prompts=(batch.prompts + batch.prompts.detach()) / 2), **how
        )
    }


class TestBackendReadsItsOwnTarget(BackendMutant):
    """Embeddings of the target that are given are not read."""

    dtypes = ("float64",)
    session_members = {
        "forward": lambda self, batch, **how: TorchSession.forward(
            self, dataclasses.replace(batch, following=None), **how
        )
    }


class TestBackendForgetsThePrefix(BackendMutant):
    dtypes = ("float64",)
    session_members = {
        "forward": lambda self, batch, **how: TorchSession.forward(self, dataclasses.replace(batch, prefix=()), **how)
    }


class TestBackendReadsEmbeddingsOneLate(BackendMutant):
    session_members = {"embeddings": lambda self, ids, **how: TorchSession.embeddings(self, ids, **how).roll(1, 0)}


class TestBackendTracesNothingOfUnknownModules(BackendMutant):
    session_members = {"trace": lambda self, *ids, **asked: TorchSession.trace(self, *ids, hidden=True)}


class TestBackendLeavesAHook(BackendMutant):
    def traced(self, *ids, **asked):
        handle = self.model.register_forward_hook(lambda *_: None)
        found = TorchSession.trace(self, *ids, **asked)
        del handle
        return found

    session_members = {"trace": traced}


class TestBackendWritesBeyondStopTexts(BackendMutant):
    session_members = {
        "generate": lambda self, prompt, options, seed, room=None, stop=(): TorchSession.generate(
            self, prompt, options, seed, room
        )
    }


class ExportMutant(BackendMutant):
    """Exports a model by saving it."""

    def saved(self, model, folder):
        if folder.exists():
            raise ap.InputError(f"{folder} exists.")
        model.save_pretrained(folder)

    @pytest.fixture
    def backend(self):
        outer = self

        class Mutant(TorchBackend):
            """Exports."""

            def export(self, spec, out, *, say, precision="fp32"):
                say("save")
                outer.saved(spec.objects, out)
                spec.tokenizer.save_pretrained(out)
                size = sum(path.stat().st_size for path in out.iterdir())
                return ap.Export(out, precision, size, 0.0, 1)

        return Mutant()


class TestBackendExportsOtherWeights(ExportMutant):
    def saved(self, model, folder):
        other = copy.deepcopy(model)
        other.lm_head.weight.data.mul_(1.01)
        super().saved(other, folder)


class TestBackendWritesOverExports(ExportMutant):
    def saved(self, model, folder):
        model.save_pretrained(folder)


class ApartMutant(BackendMutant):
    """A session of an encoder–decoder model whose answers are changed."""

    session_class = Seq2SeqSession
    families = ("t5",)
    dtypes = ("float64",)


class TestBackendTracesTheDecoderAsTheEncoder(ApartMutant):
    def traced(self, *ids, **asked):
        found = Seq2SeqSession.trace(self, *ids, **asked)
        return dataclasses.replace(found, encoder_hidden=found.hidden, encoder_attentions=found.attentions)

    session_members = {"trace": traced}


class TestBackendAttendsTheWrongWay(ApartMutant):
    """From the prompt to the target."""

    def traced(self, *ids, **asked):
        found = Seq2SeqSession.trace(self, *ids, **asked)
        return dataclasses.replace(found, cross_attentions=tuple(layer.mT for layer in found.cross_attentions))

    session_members = {"trace": traced}


class TestBackendReadsTheTargetByTheEncoder(ApartMutant):
    """Its gradients flow to the target through the embeddings of the prompt."""

    def forward(self, batch, **how):
        own = batch.following
        new = (
            None if own is None else own + batch.prompts[:, : own.shape[1]] - batch.prompts[:, : own.shape[1]].detach()
        )
        return Seq2SeqSession.forward(self, dataclasses.replace(batch, following=new), **how)

    session_members = {"forward": forward}


class EchoMutant(BackendContract):
    """The backend without a model, changed."""

    families = ("echo",)
    dtypes = ("float64",)
    media = tuple(ap.Media.of("image", name.encode()) for name in ("red", "blue"))
    options: dict[str, object] = {}
    members: dict[str, object] = {}
    claims = frozenset()

    @pytest.fixture
    def backend(self):
        session = type("Changed", (EchoSession,), self.members)

        class Mutant(EchoBackend):
            """Changed."""

            @property
            def info(mutant):
                own = super().info
                return dataclasses.replace(own, capabilities=own.capabilities | self.claims)

            def load(self, spec, *, device, dtype, memory_budget):
                made = super().load(spec, device=device, dtype=dtype, memory_budget=memory_budget)
                made.__class__ = session
                return made

        return Mutant(**self.options)

    def spec(self, family, dtype):
        return echo_spec()

    def expected_logits(self, family, dtype, prompt, target, media=()):
        return echo_logits(prompt, target, media)


class TestBackendWritesTextsOfOtherTokens(EchoMutant):
    """Its texts are not those of the tokens that it generates."""

    claims = frozenset({ap.Capability.TEXT})
    members = {
        "capabilities": property(lambda self: frozenset(map(ap.Capability, ("log_probs", "generate", "text")))),
        "write_text": lambda self, prompt, options, seed, room=None, stop=(): "other",
    }


class TestBackendMixesItsLanes(EchoMutant):
    """Answers in the order of arrival, whoever asked."""

    options = {"lanes": 3}

    def answers(self, batch):
        found = EchoSession.log_probs(self, batch)
        queue = vars(self).setdefault("queue", [found])
        queue.append(found)
        return queue.pop(0)[: batch.n_rows] if len(queue[0]) >= batch.n_rows else found

    members = {"log_probs": answers}


class TestBackendDoesNotLookAtMedia(EchoMutant):
    options = {"images": True}

    def blind(self, batch):
        rows = tuple(dataclasses.replace(row, media=()) for row in batch.rows)
        return EchoSession.log_probs(self, dataclasses.replace(batch, rows=rows))

    members = {"log_probs": blind}


class TestBackendRemembersPrompts(EchoMutant):
    """Scores the first target that it saw after a prompt, whatever follows it in another row."""

    options = {"joint": False}

    def remembered(self, batch):
        self._check_open()
        first = vars(self).setdefault("first", {})
        found = torch.zeros(batch.n_rows, batch.n_targets, dtype=torch.float64)
        for i, row in enumerate(batch.rows):
            logits = echo_logits(row.prompt, row.target).log_softmax(-1)
            ids = first.setdefault((row.prompt, len(batch.rows), batch.n_targets), row.target)
            ids = (ids + row.target[len(ids) :])[: len(row.target)]
            found[i, : len(ids)] = logits[torch.arange(len(ids)), torch.tensor(ids)]
        return found

    members = {"log_probs": remembered}


class TestBackendSharesTargetsApart(EchoMutant):
    """Says that it reads targets apart, and promises prefixes."""

    layout = ap.Layout(padding=True, prefix_sharing=False, batch_tokens=64, joint=False, packing=True)
    members = {"layout": property(lambda self, layout=layout: layout)}


# --- visualizers


class VisualizerMutant(VisualizerContract):
    def show(self, attribution):
        items = zip(attribution.feature_names, attribution.values, strict=True)
        rows = [f"<li>{html.escape(name)}: {value:.3g}</li>" for name, value in items]
        return ap.HtmlView(f"<ul>{''.join(rows)}</ul>")

    @pytest.fixture
    def visualizer(self):
        outer = self

        class Mutant:
            """A list."""

            def render(self, attribution):
                return outer.show(attribution)

        return Mutant()


class TestViewDoesNotEscape(VisualizerMutant):
    def show(self, attribution):
        return ap.HtmlView(html.unescape(super().show(attribution).fragment))


class TestViewIsNotDisplayed(VisualizerMutant):
    def show(self, attribution):
        return super().show(attribution).fragment


class TestViewLosesSigns(VisualizerMutant):
    def show(self, attribution):
        return super().show(dataclasses.replace(attribution, values=abs(attribution.values)))


class TestViewPrints(VisualizerMutant):
    def show(self, attribution):
        print(attribution)
        return super().show(attribution)


class TestViewChangesTheResult(VisualizerMutant):
    def show(self, attribution):
        attribution.values[:] = 0
        return super().show(attribution)


class TestViewLeavesAFigureOpen(VisualizerMutant):
    def show(self, attribution):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        axes.bar(range(len(attribution.values)), attribution.values)
        return figure


# --- metrics


class Drop:
    """How much the score falls without the two highest features."""

    higher_is_better = True

    def measure(self, game, values, *, rng):
        kept = torch.ones(2, game.n_features, dtype=torch.bool)
        kept[1, values.topk(min(2, game.n_features)).indices] = False
        v = game.values(kept)[:, 0]
        return ap.Measurement(float(v[0] - v[1]))


class MetricMutant(MetricContract):
    mutant = Drop

    @pytest.fixture
    def metric(self):
        return self.mutant()


class Reversed(Drop):
    """Says the wrong direction."""

    higher_is_better = False


class TestMetricSwapsDirection(MetricMutant):
    mutant = Reversed


class Unseeded(Drop):
    """Adds noise of its own."""

    def measure(self, game, values, *, rng):
        found = super().measure(game, values, rng=rng)
        return ap.Measurement(found.value + float(torch.rand(())) * 1e-3)


class TestMetricOwnNoise(MetricMutant):
    mutant = Unseeded


class Ratio(Drop):
    """Relative to the score, which has no zero."""

    def measure(self, game, values, *, rng):
        full = game.values(torch.ones(1, game.n_features, dtype=torch.bool))[0, 0]
        return ap.Measurement(super().measure(game, values, rng=rng).value / float(full))


class TestMetricRelativeToTheScore(MetricMutant):
    mutant = Ratio


class Noisy(Drop):
    """Averages over random coalitions, and calls the mean exact."""

    def measure(self, game, values, *, rng):
        mask = torch.rand(64, game.n_features, generator=rng) < 0.5
        mask = torch.cat([mask, ~mask])
        v = game.values(mask)[:, 0]
        return ap.Measurement(float(((mask.double() @ values) * (v - v.mean())).mean()))


class TestMetricCallsAMeanExact(MetricMutant):
    mutant = Noisy
    sampled = True


# --- segmenters


class SegmenterMutant(SegmenterContract):
    """A grid, changed."""

    change = staticmethod(lambda regions, pixels: regions)

    @pytest.fixture
    def segmenter(self):
        outer = self

        class Mutant:
            """A changed grid."""

            def segment(self, pixels, processor):
                return outer.change(list(Grid(rows=1, columns=3).segment(pixels, processor)), pixels)

        return Mutant()


class TestSegmenterHidesAnOption(SegmenterContract):
    @pytest.fixture
    def segmenter(self):
        class Mutant(Grid):
            """A grid with an option that nobody hears of."""

            def __init__(self, *, rows=1, columns=3, turned=False):
                super().__init__(rows=rows, columns=columns)

        return Mutant()


class TestSegmenterHasAnOptionBeforeTheStar(SegmenterContract):
    @pytest.fixture
    def segmenter(self):
        class Mutant(Grid):
            """A grid.

            Args:
                columns: number of columns.
            """

            def __init__(self, columns=3):
                super().__init__(rows=1, columns=columns)

        return Mutant()


class TestSegmenterNamesAllAlike(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: [ap.Region("region", one.mask) for one in regions])


class TestSegmenterMasksOfNumbers(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: [ap.Region(one.name, one.mask.astype(int)) for one in regions])


class TestSegmenterTurnsMasks(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: [ap.Region(one.name, one.mask.T) for one in regions])


class TestSegmenterFindsNothingInOneColour(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: regions if np.ptp(pixels, axis=(0, 1)).any() else [])


class TestSegmenterKeepsEmptyRegions(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: [*regions, ap.Region("rest", np.zeros(pixels.shape[:2], bool))])


class TestSegmenterLosesTheLastRow(SegmenterMutant):
    @staticmethod
    def change(regions, pixels):
        for one in regions:
            one.mask[-1:] &= len(pixels) == 1
        return regions


class TestSegmenterOverlaps(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: [*regions, ap.Region("all", np.ones(pixels.shape[:2], bool))])


class TestSegmenterRefusesOneColour(SegmenterMutant):
    @staticmethod
    def change(regions, pixels):
        if not np.ptp(pixels, axis=(0, 1)).any():
            raise ap.InputError("The picture has one colour only.")
        return regions


class TestSegmenterSeedsTheWorld(SegmenterMutant):
    change = staticmethod(lambda regions, pixels: (np.random.seed(0), regions)[1])


class TestSegmenterCountsOn(SegmenterMutant):
    """Names depend on the pictures seen before."""

    numbers = itertools.count()

    @staticmethod
    def change(regions, pixels):
        return [ap.Region(f"region {next(TestSegmenterCountsOn.numbers)}", one.mask) for one in regions]


class TestSegmenterMarksThePicture(SegmenterMutant):
    @staticmethod
    def change(regions, pixels):
        if pixels.flags.writeable:
            pixels[0] = 0
        return regions


class TestSegmenterNeedsToWrite(SegmenterMutant):
    """Writes what is there already, which read-only arrays refuse."""

    @staticmethod
    def change(regions, pixels):
        pixels[:] = pixels.copy()
        return regions


# --- fills


class FillMutant(FillContract):
    """A fill with changed members."""

    filling = Mean
    members: dict[str, object] = {}

    @pytest.fixture
    def fill(self):
        return type("Mutant", (self.filling,), {"__doc__": self.filling.__doc__, **self.members})()


class TestFillSaysOnceInWords(FillMutant):
    members = {"once": "yes"}


class TestFillHidesAnOption(FillMutant):
    members = {"__init__": lambda self, *, strength=1.0: None}


class TestFillReturnsFractions(FillMutant):
    members = {"fill": lambda self, pixels, absent, seed: Mean.fill(self, pixels, absent, seed) / 1.0}


class TestFillCutsTheBorder(FillMutant):
    members = {"fill": lambda self, pixels, absent, seed: Mean.fill(self, pixels, absent, seed)[1:]}


class TestFillNeedsAbsentPixels(FillMutant):
    filling = LocalMean

    def first_absent(self, pixels, absent, seed):
        return np.broadcast_to(pixels[absent][0], pixels.shape)

    members = {"fill": first_absent}


class TestFillNeedsPresentPixels(FillMutant):
    filling = LocalMean

    def first_present(self, pixels, absent, seed):
        return np.broadcast_to(pixels[~absent][0], pixels.shape)

    members = {"fill": first_present}


class TestFillLosesTheSeed(FillMutant):
    drawn = True
    filling = Noise
    members = {"fill": lambda self, pixels, absent, seed: Noise.fill(self, pixels, absent, 7)}


class TestFillDrawsUndeclared(FillMutant):
    filling = Noise


class TestFillSeedsTheWorld(FillMutant):
    members = {"fill": lambda self, *given: (np.random.seed(0), Mean.fill(self, *given))[1]}


class TestFillRemembersTheFirstPicture(FillMutant):
    """The colours of the picture before are left in a buffer."""

    def left_over(self, pixels, absent, seed):
        found = Mean.fill(self, pixels, absent, seed)
        left, self.left = getattr(self, "left", None), pixels.shape
        return found if left in (None, pixels.shape) else found + np.uint8(1)

    members = {"fill": left_over}


class TestFillWritesIntoThePicture(FillMutant):
    def in_place(self, pixels, absent, seed):
        found = Mean.fill(self, pixels, absent, seed).copy()
        if pixels.flags.writeable:
            pixels[absent] = found[absent]
        return found

    members = {"fill": in_place}


class TestFillWritesIntoTheMask(FillMutant):
    def cleared(self, pixels, absent, seed):
        found = Mean.fill(self, pixels, absent, seed).copy()
        if absent.flags.writeable:
            absent[:] = False
        return found

    members = {"fill": cleared}


class TestFillNeedsToWrite(FillMutant):
    def written(self, pixels, absent, seed):
        pixels[:] = pixels.copy()
        return Mean.fill(self, pixels, absent, seed)

    members = {"fill": written}


class TestFillSaysOnceOfEachCoalition(FillMutant):
    filling = LocalMean
    members = {"once": True}


class TestFillShowsThrough(FillMutant):
    """A blur of what should be hidden."""

    hides = True
    filling = Blur


class TestFillShowsThroughALine(FillMutant):
    """In pictures of one row, as OpenCV does by itself."""

    hides = True
    filling = Inpaint

    def leaking(self, pixels, absent, seed):
        found = Inpaint.fill(self, pixels, absent, seed)
        return np.where(absent[..., None], pixels, found) if min(absent.shape) == 1 else found

    members = {"fill": leaking}


# --- controls


class TestControlMethod(method_contract(ExactShapley, sampled=False)):
    pass


class TestControlSampler(SamplerMutant):
    pass


class TestControlTarget(TargetMutant):
    change = staticmethod(lambda scores, values: values)


class TestControlTextTarget(TextTargetMutant):
    pass


class TestControlInput(InputMutant):
    pass


class TestControlPictureInput(PictureInputMutant):
    pass


class TestControlBackend(BackendMutant):
    pass


class TestControlExport(ExportMutant):
    pass


class TestControlEcho(EchoMutant):
    options = {"images": True}


class TestControlVisualizer(VisualizerMutant):
    pass


class TestControlMetric(MetricMutant):
    pass


class TestControlSegmenter(SegmenterMutant):
    pass


class TestControlFill(FillMutant):
    pass
