"""The seams of the core, by doubles: a backend without a model, lanes, media, targets read apart, and the inside."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console

import apportion as ap
from apportion.cli import main
from apportion.hooks.manager import installed_plugins
from apportion.protocols.row import Row
from apportion.scoring.media import KeptMedia
from apportion.scoring.plan import plan
from apportion.scoring.prefix_tree import minimum_tokens
from apportion.testing import echo, reference, tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_logits
from apportion.testing.white_box import GradientTimesInput

WORDS = "one two three four"
TARGET = " x"
GRADIENT: dict[str, Any] = {"method": GradientTimesInput()}


def explain(backend: EchoBackend, **options: Any) -> ap.Explainer:
    return ap.Explainer("echo://", backend=backend, progress=False, **options)


def expected(prompt: Sequence[int], target: Sequence[int], media: Sequence[ap.Media] = ()) -> float:
    logits = echo_logits(prompt, target, media).log_softmax(-1)
    return float(logits[torch.arange(len(target)), torch.tensor(target)].sum())


# --- a backend without a model ---------------------------------------------------------------------------------------


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """No torch module is made, and no model of transformers is loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    for name in dir(transformers):
        if name.startswith("AutoModel"):
            monkeypatch.setattr(getattr(transformers, name), "from_pretrained", refuse)
            monkeypatch.setattr(getattr(transformers, name), "from_config", refuse)


@pytest.fixture
def echo_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend ``echo`` is a plugin that somebody installed."""
    about = tmp_path / "site" / "echo-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echo\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[apportion]\necho = apportion.testing.echo\n")
    monkeypatch.syspath_prepend(str(about.parent))
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()


def test_everything_works_without_a_model(no_models: None, tmp_path: Path) -> None:
    cache, log = tmp_path / "cache.sqlite3", tmp_path / "runs.jsonl"
    with explain(EchoBackend(), cache=cache, run_log=log) as explainer:
        result = explainer.attribute(WORDS, TARGET, method="kernel_shap", budget=12)
        prompt, target = (explainer.session.tokenizer(text)["input_ids"] for text in (WORDS, TARGET))
        assert result.full_value == pytest.approx(expected(prompt, target))
        assert (result.provenance.model, result.provenance.fingerprint) == ("echo", "echo")
        again = explainer.attribute(WORDS, TARGET, method="kernel_shap", budget=12)
        assert (again.provenance.evaluations, again.provenance.cached) == (0, 12)
        better = explainer.refine(result, budget=16)
        exact = explainer.attribute(WORDS, TARGET, method="shapley")
        np.testing.assert_allclose(better.values, exact.values, atol=1e-9)
        many = list(explainer.attribute_many([WORDS, "five six"], target=TARGET, method="shapley"))
        np.testing.assert_allclose(many[0].values, exact.values, atol=1e-12)
        written = explainer.attribute(WORDS, method="ablation")
        assert written.provenance.generation == {}
        for target_fn in ("entropy", "kl_divergence", "prob"):
            assert explainer.attribute(WORDS, TARGET, method="ablation", target_fn=target_fn).values.any()
        contrast = explainer.attribute(WORDS, TARGET, contrast=" y", target_fn="contrast_prob_diff", method="ablation")
        assert contrast.values.any()
        cost = explainer.estimate(WORDS, TARGET, method="kernel_shap", budget=12)
        assert (cost.evaluations, cost.model_bytes) == (12, None)
        cost.show()
        evaluation = explainer.evaluate(exact)
        evaluation.show()
        tree = explainer.attribute(WORDS, TARGET, method="hierarchical")
        pairs = explainer.attribute(WORDS, TARGET, method="interactions")
        quiet = Console(quiet=True)
        for view in explainer.plugins["visualizers"].names():
            if view in ("layers", "image"):  # of methods at layers, which need a model, and of pictures
                continue
            shown = {"tree": tree, "matrix": pairs, "network": pairs}.get(view, exact)
            quiet.print(shown.plot(view))
        ap.Attribution.load(exact.save(tmp_path / "exact.json")).show()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["status"] for line in lines} == {"ok"}
    assert {line["backend"] for line in lines if line["backend"]} == {"echo"}


def test_a_dataset_runs_without_a_model(
    no_models: None, echo_installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps({"prompt": f"{WORDS} {i}", "target": " y"}) + "\n" for i in range(3)))
    words = ["run", str(data), "--out", str(out), "--model", "echo://", "--method", "ablation"]
    assert main(words) == 0  # backend="auto": only one claims a model of this name
    assert main([*words, "--backend", "echo", "--restart"]) == 0
    results = dict(ap.load_results(out))
    assert len(results) == 3
    assert {result.provenance.backend for result in results.values()} == {"echo"}
    capsys.readouterr()
    assert main(["attribute", WORDS, "--model", "echo://", "--target", " y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["backend"] == "echo"


def test_auto_takes_who_claims_the_model(echo_installed: None) -> None:
    with ap.Explainer("echo://", progress=False) as explainer:
        assert explainer.session.info.backend == "echo"
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        assert explainer.session.info.backend == "torch"
    with pytest.raises(ap.ModelError, match="No installed backend opens the address of a server: grpc://nowhere"):
        ap.Explainer("grpc://nowhere.example/v1")
    with pytest.raises(ap.ModelError, match="opens the model 'echo://', not 'other'"):
        ap.Explainer("other", backend="echo")
    with pytest.raises(ap.ModelError, match="is the address of a server"):
        ap.Explainer("https://nowhere.example/v1", backend="torch")


def test_a_tokenizer_may_come_with_the_name() -> None:
    """One with another vocabulary order would give other ids."""
    other = tiny.tokenizer(adds_start=True)
    with explain(EchoBackend()) as plain, explain(EchoBackend(), tokenizer=other) as named:
        assert plain.session.tokenizer is not other
        assert named.session.tokenizer is other
        assert plain.attribute("ab", "c").full_value != named.attribute("ab", "c").full_value
    with ap.Explainer(tiny.model(), tokenizer=tiny.tokenizer(), progress=False) as explainer:
        assert explainer.session.info.backend == "torch"
    with pytest.raises(ap.InputError, match="The tokenizer is given twice"):
        ap.Explainer((tiny.model(), tiny.tokenizer()), tokenizer=other)


# --- lanes -----------------------------------------------------------------------------------------------------------


class Counting:
    """Sees batches, and whether two of its calls ever overlap outside the session."""

    def __init__(self) -> None:
        self.inside = self.most = self.batches = 0
        self.threads: set[str] = set()

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, batch: ap.ScoringBatch) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.current_thread().name)
        self.inside -= 1
        found = yield
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.batches += 1
        self.inside -= 1
        return found


LONG = " ".join(f"word{i}" for i in range(12))


@pytest.mark.parametrize("target_fn", ["log_prob", "entropy"])
def test_lanes_answer_in_any_order_and_change_nothing(target_fn: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "kernel_shap", "budget": 60, "target_fn": target_fn}
    with explain(EchoBackend()) as explainer:
        alone = explainer.attribute(LONG, TARGET, **options)
    counting = Counting()
    with explain(EchoBackend(lanes=3), plugins=[counting], cache=tmp_path / "cache.sqlite3") as explainer:
        found = explainer.attribute(LONG, TARGET, **options)
        session = explainer.session
        assert isinstance(session, EchoSession)
        np.testing.assert_array_equal(found.values, alone.values)
        assert found.provenance.evaluations == alone.provenance.evaluations == 60
        assert counting.batches >= 3
        assert counting.most == 1, "plugins were called at the same time"
        if target_fn == "log_prob":
            assert session.most_under_way == 3
            again = explainer.attribute(LONG, TARGET, **options)
            assert (again.provenance.evaluations, again.provenance.cached) == (0, 60)
            many = list(explainer.attribute_many([LONG, WORDS], target=TARGET, **options))
            np.testing.assert_array_equal(many[0].values, alone.values)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("apportion-lane")]


def test_a_failure_in_one_lane_ends_the_run_and_leaves_no_thread() -> None:
    with explain(EchoBackend(lanes=3)) as explainer:
        real, calls = explainer.session.log_probs, []

        def fails(batch: ap.ScoringBatch) -> torch.Tensor:
            calls.append(batch.n_rows)
            if len(calls) == 2:
                raise RuntimeError("the server went away")
            return real(batch)

        explainer.session.log_probs = fails  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="the server went away"):
            explainer.attribute(LONG, TARGET, method="kernel_shap", budget=100)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("apportion-lane")]


def test_memory_that_runs_out_in_lanes_is_halved() -> None:
    with explain(EchoBackend()) as explainer:
        alone = explainer.attribute(WORDS, TARGET, method="ablation")
    with explain(EchoBackend(lanes=2)) as explainer:
        real = explainer.session.log_probs

        def small(batch: ap.ScoringBatch) -> torch.Tensor:
            if batch.n_rows > 1:
                raise ap.BatchTooLargeError("no room")
            return real(batch)

        explainer.session.log_probs = small  # type: ignore[method-assign]
        found = explainer.attribute(WORDS, TARGET, method="ablation")
    np.testing.assert_array_equal(found.values, alone.values)
    assert any("Memory ran out" in note for note in found.provenance.notes)


# --- media -----------------------------------------------------------------------------------------------------------


RED, BLUE = (ap.Media.of("image", np.full((2, 2, 3), shade, dtype=np.uint8)) for shade in (200, 30))


@dataclass(frozen=True)
class Pictures:
    """A text behind pictures, each of which is there or replaced by ``instead``."""

    text: str
    pictures: tuple[ap.Media, ...]
    instead: ap.Media


class PicturesAdapter:
    def __init__(self, prompt: Pictures, context: ap.AdaptContext) -> None:
        self.prompt, self.context = prompt, context
        self.features = tuple(ap.Feature(f"picture{i}", f"picture{i}") for i in range(len(prompt.pictures)))

    def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
        (ids,) = self.context.encode([self.prompt.text])
        shown = [
            tuple(one if on else self.prompt.instead for one, on in zip(self.prompt.pictures, row, strict=True))
            for row in mask.tolist()
        ]
        return [ap.ModelInput(ids, media) for media in shown]


class PicturesPlugin:
    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object, context: ap.AdaptContext) -> PicturesAdapter | None:
        return PicturesAdapter(prompt, context) if isinstance(prompt, Pictures) else None


def test_media_are_part_of_the_input(tmp_path: Path) -> None:
    """Two digests behind one prompt are two evaluations; the same twice is one. The cache tells them apart."""
    options: dict[str, Any] = {"plugins": [PicturesPlugin()], "cache": tmp_path / "cache.sqlite3"}
    with explain(EchoBackend(images=True), **options) as explainer:
        result = explainer.attribute(Pictures("What?", (RED,), BLUE), TARGET, method="shapley")
        assert result.provenance.evaluations == 2
        prompt, target = (explainer.session.tokenizer(text)["input_ids"] for text in ("What?", TARGET))
        assert result.full_value == pytest.approx(expected(prompt, target, [RED]))
        assert result.base_value == pytest.approx(expected(prompt, target, [BLUE]))
        assert expected(prompt, target, [RED]) != expected(prompt, target, [BLUE]) != expected(prompt, target)
        same = explainer.attribute(Pictures("What?", (BLUE,), BLUE), TARGET, method="shapley")
        assert (same.provenance.evaluations, same.provenance.cached) == (0, 1)
        assert same.values.tolist() == [0.0]
        # Without pictures, the same tokens are another prompt.
        text = explainer.attribute(ap.Text("What?", by="tokens"), TARGET, method="shapley")
        assert text.full_value == pytest.approx(expected(prompt, target))
        two = explainer.attribute(Pictures("What?", (RED, RED), BLUE), TARGET, method="shapley", target_fn="entropy")
        assert two.provenance.evaluations == 4, "the order of pictures counts"
        written = explainer.attribute(Pictures("What?", (RED,), BLUE), method="shapley")
        other = explainer.attribute(Pictures("What?", (BLUE,), RED), method="shapley")
        assert written.target_text != other.target_text, "generation sees the picture"


def test_a_backend_that_reads_text_only_refuses_media() -> None:
    for backend in (EchoBackend(), "torch"):
        model = "echo://" if isinstance(backend, EchoBackend) else (tiny.model(), tiny.tokenizer())
        with (
            ap.Explainer(model, backend=backend, plugins=[PicturesPlugin()], progress=False) as explainer,
            pytest.raises(ap.CapabilityError, match="The prompt contains pictures, but .* reads only text"),
        ):
            explainer.attribute(Pictures("What?", (RED,), BLUE), TARGET)


class HearingSession(EchoSession):
    """Reads sounds, encodes each once, and keeps the last two."""

    media_kinds = frozenset({"sound"})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.layout = replace(self.layout, media=replace(self.layout, kept_media=2))
        self.encoded_media = 0
        self._known: list[ap.Media] = []

    def log_probs(self, batch: ap.ScoringBatch) -> torch.Tensor:
        for one in dict.fromkeys(one for row in batch.rows for one in row.media):
            assert isinstance(one.content(), bytes)
            self.encoded_media += one not in self._known
            self._known = [*(known for known in self._known if known != one), one][-2:]
        return super().log_probs(batch)


class HearingBackend(EchoBackend):
    def load(self, spec: ap.ModelSpec, **options: Any) -> HearingSession:
        made = super().load(spec, **options)
        return HearingSession(made.tokenizer, made.layout, made.capabilities, made.info.memory_budget)


def test_other_kinds_of_media_need_no_change_of_the_core() -> None:
    """A plugin's backend reads sounds, which its adapter makes; each is encoded once, and pictures are refused."""
    sounds = tuple(ap.Media.of("sound", note, lambda note=note: note) for note in (b"do", b"re", b"mi"))
    silence = ap.Media.of("sound", b"")
    with explain(HearingBackend(), plugins=[PicturesPlugin()]) as explainer:
        prompt = Pictures("What?", sounds, silence)
        result = explainer.attribute(prompt, TARGET, method="shapley")
        assert result.provenance.evaluations == 8
        ids, target = (explainer.session.tokenizer(text)["input_ids"] for text in ("What?", TARGET))
        assert result.full_value == pytest.approx(expected(ids, target, sounds))
        cost = explainer.estimate(prompt, TARGET, method="shapley")
        assert cost.encoded_media == result.provenance.encoded_media == 4
        with pytest.raises(ap.CapabilityError, match="The prompt contains pictures, but .* reads only text, sound"):
            explainer.attribute(Pictures("What?", (RED,), BLUE), TARGET)


def test_rows_are_ordered_so_that_few_media_are_encoded_again() -> None:
    """Of 30 pictures before 2 texts each, 5 are kept: windows of 5 pictures are read one after the other."""
    media = [ap.Media.of("image", bytes([i])) for i in range(30)]
    rows = [Row((*range(length),), (7, 8), (one,)) for length in (9, 4) for one in media]
    for kept, encoded in ((None, 30), (5, 30), (1, 30)):
        layout = ap.Layout(padding=True, prefix_sharing=False, batch_tokens=40, kept_media=kept)
        made, store = plan(rows, layout, lambda *_: 1, 10**9), KeptMedia(kept)
        assert sum(store.read([made.rows[i] for i in batch.rows]) for batch in made.batches) == encoded
    unordered = ap.Layout(padding=True, prefix_sharing=False, batch_tokens=40)
    made, store = plan(rows, unordered, lambda *_: 1, 10**9), KeptMedia(5)
    assert sum(store.read([made.rows[i] for i in batch.rows]) for batch in made.batches) == 60


def test_rows_with_other_media_share_no_tokens() -> None:
    ids = tuple(range(20))
    rows = [Row((*ids, i), (7, 8), media) for media in ((RED,), (BLUE,), ()) for i in (21, 22)]
    assert minimum_tokens(rows) == 3 * (len(ids) + 2 + 2)
    for packing in (True, False):
        layout = ap.Layout(padding=True, prefix_sharing=not packing, batch_tokens=10**9, packing=packing)
        made = plan(rows, layout, lambda *_: 1, 10**9)
        assert made.forwarded_tokens == minimum_tokens(rows)
        for batch in made.batches:
            assert not batch.prefix or len({made.rows[i].media for i in batch.rows}) == 1
    kept = ap.ModelInput(ids, (RED,))
    packed = ap.Layout(padding=True, prefix_sharing=False, batch_tokens=10**9, packing=True)
    spared = [
        plan([Row((*ids, 30), (7, 8), media)], packed, lambda *_: 1, 10**9, kept).forwarded_tokens
        for media in ((RED,), (BLUE,))
    ]
    assert spared == [2, 22], "what was kept of one picture was used for another"


# --- targets read apart ----------------------------------------------------------------------------------------------


def test_targets_read_apart_have_a_limit_of_their_own() -> None:
    long = "a" * 510
    with (
        explain(EchoBackend()) as joint,
        pytest.raises(ap.InputError, match="exceed the model's context length of 512"),
    ):
        joint.attribute(ap.Text(long, by=lambda text: [text[:200], text[200:]]), "b" * 10)
    with explain(EchoBackend(joint=False)) as apart:
        result = apart.attribute(ap.Text(long, by=lambda text: [text[:200], text[200:]]), "b" * 10, method="ablation")
        assert len(result.target_tokens) == 10
        # Nothing is shared; the target follows a start token, and its last token is not read.
        assert result.provenance.forwarded_tokens == (510 + 10) + (310 + 10) + (200 + 10)
        with pytest.raises(ap.InputError, match="600 tokens exceeds the 512 tokens that the model's decoder reads"):
            apart.attribute("ab", "b" * 600)


# --- the inside ------------------------------------------------------------------------------------------------------


def test_a_white_box_method_is_counted_and_labelled(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False, run_log=log) as explainer:
        prompt, target = (explainer.session.tokenizer(text)["input_ids"] for text in (WORDS, " xy"))
        tokens = len(prompt) + len(target) - 1
        for target_fn, unit in (("log_prob", "nats"), ("prob", "probability")):
            result = explainer.attribute(WORDS, " xy", target_fn=target_fn, **GRADIENT)
            assert (result.unit, result.estimand) == (unit, "gradient × input")
            assert (result.provenance.evaluations, result.provenance.forwarded_tokens) == (1, tokens)
            cost = explainer.estimate(WORDS, " xy", target_fn=target_fn, **GRADIENT)
            assert (cost.evaluations, cost.forwarded_tokens) == (1, tokens)
            assert cost.tokens_per_second > 0
        with pytest.raises(ap.BudgetError, match="the budget is 1"):
            explainer.attribute(WORDS, " xy", method=Twice(), budget=1)
        assert explainer.attribute(WORDS, " xy", method=Twice(), budget=2).provenance.evaluations == 2
        many = list(explainer.attribute_many([WORDS, "five six"], target=" xy", at_once=2, **GRADIENT))
        np.testing.assert_allclose(many[0].values, explainer.attribute(WORDS, " xy", **GRADIENT).values)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["evaluations"] for line in lines if line["status"] == "ok"} >= {1, 2}


class Twice(GradientTimesInput):
    """Asks once more than it needs."""

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside = game.inside()
        inside.values(inside.embeddings()[None])
        return super().run(game, budget=budget, rng=rng)


class Inference(GradientTimesInput):
    """Queries the game in inference mode, as a perturbation method may."""

    requires = frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        with torch.inference_mode():
            value = game.values(torch.ones(1, game.n_features, dtype=torch.bool))
        return ap.Estimate(value.expand(game.n_features, -1).clone())


def test_modes_of_one_method_do_not_reach_another(llama: ap.Explainer) -> None:
    """Each run of attribute_many has a thread of its own, and with it PyTorch's modes."""
    items = [{"prompt": WORDS, "method": method} for method in (Inference(), GradientTimesInput()) * 3]
    for at_once in (1, 6):
        found = [result.values for result in llama.attribute_many(items, target=TARGET, at_once=at_once)]
        expected = llama.attribute(WORDS, TARGET, **GRADIENT).values
        for values in found[1::2]:
            np.testing.assert_allclose(values, expected)


def test_an_estimate_runs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the trials: one row, twice, and a sample of the run's batches."""
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        rows: list[int] = []
        real = explainer.session.forward

        def counted(batch: ap.EmbeddedBatch, *, recompute: bool = False) -> Any:
            rows.append(len(batch.prompts))
            return real(batch, recompute=recompute)

        monkeypatch.setattr(explainer.session, "forward", counted)
        cost = explainer.estimate(WORDS, " xy", method=Steps())
        assert cost.evaluations == 50
        assert rows[:2] == [1, 1]
        assert sum(rows) < 50
        rows.clear()
        made = explainer.attribute(WORDS, " xy", method=Steps()).provenance
        assert (made.evaluations, made.forwarded_tokens) == (cost.evaluations, cost.forwarded_tokens)
        assert rows == [25, 25]


class Steps(GradientTimesInput):
    """Integrated gradients in outline: points on the way to the prompt, in two batches."""

    estimand = "integrated gradients"

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside = game.inside()
        end = inside.embeddings()
        total = torch.zeros_like(end)
        for part in torch.arange(1, 51).to(end).split(25):
            points = (part[:, None, None] / 50 * end).requires_grad_()
            (gradient,) = torch.autograd.grad(inside.values(points)[:, 0].sum(), points)
            total += gradient.sum(0)
        scores = (total * end / 50).sum(-1)
        found = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        for feature, score in zip(inside.feature_of, scores.tolist(), strict=True):
            if feature is not None:
                found[feature] += score
        return ap.Estimate(found)


DIFFERENTIABLE = {
    "log_prob": {},
    "prob": {},
    "crossentropy": {},
    "perplexity": {},
    "logit": {},
    "entropy": {},
    "kl_divergence": {},
    "pcxmi": {},
    "in_context_pvi": {},
    "contrast_prob": {"contrast": " no"},
    "contrast_prob_diff": {"contrast": " no"},
    "contrast_logits_diff": {"contrast": " no"},
    "contrast_log_prob_diff": {"contrast": " no"},
}


@pytest.fixture(scope="module")
def llama() -> Iterator[ap.Explainer]:
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        yield explainer


def test_every_target_function_is_differentiable_or_refused(llama: ap.Explainer) -> None:
    refused = set()
    for name in llama.plugins["targets"].names():
        if llama.plugins["targets"].get(name).load().needs is ap.Needs.TEXT:
            with pytest.raises((ap.InputError, ap.CapabilityError), match="reads only the texts|needs a"):
                llama.attribute(WORDS, TARGET, target_fn=name, **GRADIENT)
            continue
        contrast = {"contrast": " no"} if name.startswith("contrast") else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                llama.attribute(WORDS, TARGET, target_fn=name, **contrast, **GRADIENT)
        except ap.CapabilityError as error:
            assert f"The target function {name!r} has no gradient" in str(error)
            refused.add(name)
    assert refused == {"top_p_size"}


@pytest.mark.parametrize(("target_fn", "options"), DIFFERENTIABLE.items(), ids=list(DIFFERENTIABLE))
def test_values_of_embeddings_are_those_of_the_prompt(
    llama: ap.Explainer, target_fn: str, options: dict[str, Any]
) -> None:
    """And their gradient is the slope of these values, for every differentiable target function."""
    probe = Probe()
    llama.attribute(WORDS, " xy", target_fn=target_fn, method=probe, **options)
    plain = llama.attribute(WORDS, " xy", target_fn=target_fn, method="ablation", **options)
    assert probe.values[0].tolist() == pytest.approx([plain.full_value, *probe.values[0, 1:].tolist()], abs=1e-6)
    assert probe.change == pytest.approx(probe.difference, rel=5e-3, abs=1e-9)


class Probe(GradientTimesInput):
    """Keeps values at the prompt, and both sides of a step."""

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside = game.inside()
        point = inside.embeddings()[None].requires_grad_()
        values = inside.values(point)
        (gradient,) = torch.autograd.grad(values.sum(), point)
        step = 1e-3 * torch.randn(point.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        step *= point.detach().norm() / step.norm() * 1e-3
        up, down = (inside.values((point + side * step).detach()).sum() for side in (1, -1))
        self.values, self.change = values.detach(), float((gradient * step).sum())
        self.difference = float((up - down).detach()) / 2
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))


def test_functions_of_users_keep_their_gradient(llama: ap.Explainer) -> None:
    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits[..., 5] - logits[..., 6]

    assert llama.attribute(WORDS, TARGET, target_fn=margin, **GRADIENT).values.any()
    for cut_off in (lambda logits: logits.argmax(-1).double(), lambda logits: logits[..., 5].detach()):
        with pytest.raises(ap.CapabilityError, match="has no gradient: its values are counts, or are detached"):
            llama.attribute(WORDS, TARGET, target_fn=cut_off, **GRADIENT)


def test_gradient_times_input_by_hand() -> None:
    """On the model itself: GPT-2, which computes nothing in fp32."""
    model, tokenizer = tiny.model("gpt2"), tiny.tokenizer()
    prompt, target = tokenizer(WORDS)["input_ids"], tokenizer(" x")["input_ids"]
    embedded = model.get_input_embeddings()(torch.tensor([[*prompt, *target[:-1]]])).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits[0, len(prompt) - 1 :]
    value = logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)].sum()
    (gradient,) = torch.autograd.grad(value, embedded)
    scores = (gradient * embedded)[0].sum(-1)[: len(prompt)]
    with ap.Explainer((model, tokenizer), progress=False) as explainer:
        found = explainer.attribute(ap.Text(WORDS, by="tokens"), " x", **GRADIENT)
    np.testing.assert_allclose(found.values, scores.detach().numpy(), atol=1e-12)
    assert reference.log_probs(model, prompt, target).sum() == pytest.approx(float(value))


def test_traces_are_counted_and_leave_nothing(llama: ap.Explainer) -> None:
    model = llama.session.model  # type: ignore[attr-defined]
    tracer = Tracer()
    result = llama.attribute(WORDS, " x", method=tracer)
    cost = llama.estimate(WORDS, " x", method=tracer)
    assert cost.evaluations == result.provenance.evaluations == 1
    assert cost.forwarded_tokens == result.provenance.forwarded_tokens
    assert tuple(tracer.found.modules) == ("model.layers.0.mlp",)
    assert len(tracer.found.hidden) == 3
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ap.InputError, match="has no module 'model.layers.0.mpl'. Did you mean 'model.layers.0.mlp'"):
        llama.attribute(WORDS, " x", method=Tracer("model.layers.0.mpl"))


class Tracer:
    estimand, requires = "nothing", frozenset({ap.Capability.HIDDEN_STATES})

    def __init__(self, module: str = "model.layers.0.mlp") -> None:
        self.module = module

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        self.found = game.inside().trace(hidden=True, modules=[self.module])
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))


def test_a_backend_without_an_inside_says_who_has_one() -> None:
    with explain(EchoBackend()) as explainer, pytest.raises(ap.CapabilityError, match="needs gradients, which the"):
        explainer.attribute(WORDS, TARGET, **GRADIENT)


def test_requests_have_an_id() -> None:
    """One for each run, the same in every hook and event."""

    class Ids:
        def __init__(self) -> None:
            self.seen: list[tuple[str, str]] = []

        @ap.hookimpl(wrapper=True)
        def apportion_adapt_input(self, context: ap.AdaptContext) -> Any:
            self.seen.append(("adapt", context.request_id))
            return (yield)

        @ap.hookimpl
        def apportion_before_run(self, request: ap.Request) -> None:
            self.seen.append(("before", request.id))

        @ap.hookimpl
        def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
            self.seen.append((event.stage, event.request_id))

    ids = Ids()
    with explain(EchoBackend(), plugins=[ids]) as explainer:
        first = explainer.attribute(WORDS, method="kernel_shap", budget=12)
        assert len({name for _, name in ids.seen}) == 1
        assert ids.seen[0][1]
        assert [stage for stage, _ in ids.seen][:3] == ["adapt", "generate", "before"]
        ids.seen.clear()
        explainer.refine(first, budget=16)
        list(explainer.attribute_many([WORDS, WORDS], target=TARGET))
        ends = [name for stage, name in ids.seen if stage == "end"]
        assert len(set(ends)) == len(ends) == 3
        assert {name for stage, name in ids.seen if stage in ("items", "close")} == {""}


def test_echo_is_a_plugin() -> None:
    with ap.Explainer("echo://", plugins=[echo], progress=False) as explainer:
        assert explainer.session.info.backend == "echo"


def test_modes_of_the_caller_do_not_matter(llama: ap.Explainer) -> None:
    expected = llama.attribute(WORDS, TARGET, **GRADIENT).values
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = llama.attribute(WORDS, TARGET, **GRADIENT).values
            (many,) = llama.attribute_many([WORDS], target=TARGET, **GRADIENT)
        np.testing.assert_allclose(found, expected)
        np.testing.assert_allclose(many.values, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_output_layer_of_the_inside_computes_in_fp32(dtype: torch.dtype) -> None:
    """As it does where batches are scored: half-precision logits would be off by up to 0.1 nats."""
    probe = Probe()
    with ap.Explainer((tiny.model(dtype=dtype), tiny.tokenizer()), share_prefixes=False, progress=False) as explainer:
        explainer.attribute(WORDS, " xy", method=probe)
        prompt, target = (explainer.session.tokenizer(text)["input_ids"] for text in (WORDS, " xy"))
        row = explainer.session.log_probs(ap.ScoringBatch.of([prompt], target))
    assert float(probe.values[0, 0]) == pytest.approx(float(row.sum()), abs=2e-3)


def test_until_and_refine_leave_exact_white_box_methods_alone(llama: ap.Explainer) -> None:
    assert llama.attribute(WORDS, TARGET, until=0.1, **GRADIENT).provenance.evaluations == 1


def test_methods_on_tokens_refuse_media() -> None:
    prompt = Pictures("What?", (RED,), BLUE)
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[PicturesPlugin()], progress=False) as explainer:
        for options in (GRADIENT, {"method": "reagent"}):
            for call in (explainer.attribute, explainer.estimate):
                with pytest.raises(ap.CapabilityError, match="The prompt holds pictures or other media"):
                    call(prompt, TARGET, **options)


class Asking:
    """Calls something on the inside."""

    estimand, requires = "nothing", frozenset({ap.Capability.GRADIENTS})

    def __init__(self, ask: Any) -> None:
        self.ask = ask

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        self.ask(game.inside())
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda inside: inside.values(torch.zeros(2, 3)), ap.InputError, r"embeddings of shape \[B, 18, D\]"),
        (lambda inside: inside.values(inside.embeddings()[None][:0]), ap.InputError, r"not \[0, 18, 32\]"),
        (lambda inside: inside.values(torch.zeros(1, 18, 7)), ap.InputError, "are 7 wide, and those of this model 32"),
        (
            lambda inside: inside.values(torch.zeros(1, 18, 32).long()),
            ap.InputError,
            "embeddings of floating-point numbers",
        ),
        (lambda inside: inside.values(torch.full((1, 18, 32), torch.nan)), ap.ScoreError, "is not finite"),
        (
            lambda inside: inside.trace(modules="lm_hea"),
            ap.InputError,
            "has no module 'lm_hea'. Did you mean 'lm_head'",
        ),
        (lambda inside: inside.trace(modules=[5]), ap.InputError, "must be names of modules"),
        (lambda inside: inside.trace(modules=["model.layers"]), ap.InputError, "'model.layers' gives no tensor"),
        (lambda inside: inside.trace(modules=["model"]), ap.InputError, "'model' gives no tensor"),
        (lambda inside: inside.module_gradients(inside.embeddings()[None], ["lm_hea"]), ap.InputError, "no module"),
        (
            lambda inside: inside.module_gradients(inside.embeddings()[None], ["lm_head"], side="in"),
            ap.InputError,
            "side",
        ),
        (
            lambda inside: inside.gradients(inside.embeddings()[None], following=torch.zeros(1, 3, 4)),
            ap.InputError,
            "d",
        ),
    ],
)
def test_what_the_inside_refuses(llama: ap.Explainer, ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llama.attribute(WORDS, TARGET, method=Asking(ask))


# --- backends that break their protocol -------------------------------------------------------------------------------


def lying(**members: Any) -> EchoBackend:
    """An echo whose sessions have other members."""

    class Lying(EchoBackend):
        def load(self, spec: ap.ModelSpec, **place: Any) -> EchoSession:
            session = super().load(spec, **place)
            session.__class__ = type("LyingSession", (EchoSession,), members)
            return session

    return Lying()


LAYOUT = {"padding": True, "prefix_sharing": False, "batch_tokens": 64}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"layout": property(lambda self: ap.Layout(**LAYOUT, source_sharing=True))},
            "layout shares the encodings of prompts that are read as one sequence",
        ),
        (
            {"layout": property(lambda self: ap.Layout(**LAYOUT, lanes=0))},
            "layout has lanes=0; it must be a whole number",
        ),
        (
            {"layout": property(lambda self: ap.Layout(**LAYOUT, lanes="3"))},
            "layout has lanes='3'; it must be a whole number",
        ),
        ({"layout": property(lambda self: None)}, "layout is None; it must be a Layout"),
        ({"kept": (1, 2)}, r"kept is \(1, 2\); it must be a ModelInput or None"),
        ({"tokenizer": property(lambda self: "gpt2", lambda self, value: None)}, "tokenizer is 'gpt2'"),
        ({"row_bytes": lambda self, prefix, suffix, targets: None}, "row_bytes must return a whole number"),
    ],
)
def test_sessions_are_held_to_their_protocol(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.PluginError, match=rf"The backend 'echo' opened a session whose {message}"):
        explain(lying(**members))


def test_a_session_that_is_none_is_refused() -> None:
    class Nothing(EchoBackend):
        def load(self, spec: ap.ModelSpec, **place: Any) -> Any:
            return None

    with pytest.raises(ap.PluginError, match="opened None, which is not a session: it lacks"):
        explain(Nothing())


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.bfloat16, torch.float16, torch.complex64])
def test_scores_in_another_precision_are_refused(dtype: torch.dtype) -> None:
    backend = lying(log_probs=lambda self, batch: EchoSession.log_probs(self, batch).to(dtype))
    with explain(backend) as explainer, pytest.raises(ap.PluginError, match="fp32 or fp64 is needed"):
        explainer.attribute(WORDS, TARGET, method="ablation")


def test_a_checksum_that_says_nothing_disables_the_cache(tmp_path: Path) -> None:
    backend = lying(checksum=lambda self: None)
    with explain(backend, cache=tmp_path / "cache.sqlite3") as explainer:
        for _ in range(2):
            with (
                pytest.warns(RuntimeWarning, match="returned None, not a non-empty string")
                if _ == 0
                else (warnings.catch_warnings())
            ):
                assert explainer.attribute(WORDS, TARGET, method="ablation").provenance.cached == 0


def test_a_fingerprint_is_taken_before_anything_is_scored() -> None:
    with explain(lying(fingerprint=lambda self: 5)) as explainer:
        with pytest.raises(ap.PluginError, match="returned 5, not a string"):
            explainer.attribute(WORDS, TARGET, method="ablation")
        assert not explainer.session.asked  # type: ignore[attr-defined]


def test_what_a_backend_says_of_why_it_was_passed_over_is_not_lost() -> None:
    class Raising(EchoBackend):
        def claims(self, spec: ap.ModelSpec) -> bool:
            raise ValueError("no idea")

    class Plugin:
        @ap.hookimpl
        def apportion_register_backends(self, register: Any) -> None:
            register("raising", Raising, summary="for a test")

    with pytest.raises(ap.ModelError, match=r"its claims\(\) failed \(ValueError\('no idea'\)\)"):
        ap.Explainer("grpc://nowhere.example", plugins=[Plugin()])


@pytest.mark.parametrize(
    ("tokenizer", "error", "message"),
    [
        (12, ap.InputError, "tokenizer=12 must be a tokenizer of transformers, a hub id or a folder"),
        ("", ap.InputError, "tokenizer='' is empty"),
        ("/no/such", ap.ModelError, "The tokenizer '/no/such' cannot be loaded: There is no folder or file /no/such"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(
    tokenizer: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    for model, backend in (("echo://", EchoBackend()), (str(tmp_path), "torch")):
        with pytest.raises(error, match=message):
            ap.Explainer(model, tokenizer=tokenizer, backend=backend)


def test_specs_of_users_are_checked() -> None:
    spec = echo.echo_spec()
    with ap.Explainer(spec, backend=EchoBackend(), progress=False) as explainer:
        assert explainer.session.tokenizer is spec.tokenizer
    with pytest.raises(ap.InputError, match="The tokenizer is given twice: in the ModelSpec and as tokenizer="):
        ap.Explainer(spec, tokenizer=tiny.tokenizer(), backend=EchoBackend())
    with pytest.raises(ap.InputError, match="must be a non-empty string, not 5"):
        ap.Explainer(ap.ModelSpec(5))  # type: ignore[arg-type]
