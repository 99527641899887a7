"""The hooks: each is called when its documentation says, and they only gain arguments."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import apportion as ap
from apportion.hooks import hookspecs
from apportion.hooks.hookspecs import API_VERSION
from apportion.hooks.manager import load_plugins
from apportion.hooks.validation import hook_names
from apportion.testing import tiny, tiny_explainer

VERSION_1 = {
    "apportion_configure": ("settings",),
    "apportion_register_inputs": ("register",),
    "apportion_register_samplers": ("register",),
    "apportion_register_methods": ("register",),
    "apportion_register_targets": ("register",),
    "apportion_register_visualizers": ("register",),
    "apportion_register_backends": ("register",),
    "apportion_register_metrics": ("register",),
    "apportion_register_segmenters": ("register",),
    "apportion_register_fills": ("register",),
    "apportion_adapt_input": ("prompt", "context"),
    "apportion_before_run": ("request",),
    "apportion_after_run": ("request", "attribution"),
    "apportion_on_progress": ("event",),
    "apportion_lookup": ("request", "session", "rows"),
    "apportion_lookup_texts": ("request", "session", "prompts", "samples"),
    "apportion_text_written": ("request", "session", "prompt", "sample", "text"),
    "apportion_score": ("session", "batch", "request", "read"),
}
"""Hooks and arguments that plugins written for version 1 rely on. Add to it, but remove nothing."""


def test_hooks_only_gain_arguments() -> None:
    assert API_VERSION == 1
    for name, arguments in VERSION_1.items():
        assert name in hook_names(), f"the hook {name} of API version 1 is gone"
        found = tuple(inspect.signature(getattr(hookspecs, name)).parameters)
        missing = set(arguments) - set(found)
        assert not missing, f"{name} lost {missing}; raise the API version"
    assert set(hook_names()) == set(VERSION_1), "a new hook: add it here, so that it stays"


class Everything:
    """Implements every hook and remembers the order of calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[ap.ProgressEvent] = []

    def called(self, name: str) -> None:
        if not self.calls or self.calls[-1] != name:
            self.calls.append(name)

    @ap.hookimpl
    def apportion_configure(self, settings: ap.Settings) -> None:
        self.called("configure")

    @ap.hookimpl
    def apportion_register_inputs(self, register: ap.Register) -> None:
        self.called("register_inputs")

    @ap.hookimpl
    def apportion_register_samplers(self, register: ap.Register) -> None:
        self.called("register_samplers")

    @ap.hookimpl
    def apportion_register_methods(self, register: ap.Register) -> None:
        self.called("register_methods")

    @ap.hookimpl
    def apportion_register_targets(self, register: ap.Register) -> None:
        self.called("register_targets")

    @ap.hookimpl
    def apportion_register_visualizers(self, register: ap.Register) -> None:
        self.called("register_visualizers")

    @ap.hookimpl
    def apportion_register_backends(self, register: ap.Register) -> None:
        self.called("register_backends")

    @ap.hookimpl
    def apportion_register_metrics(self, register: ap.Register) -> None:
        self.called("register_metrics")

    @ap.hookimpl
    def apportion_register_segmenters(self, register: ap.Register) -> None:
        self.called("register_segmenters")

    @ap.hookimpl
    def apportion_register_fills(self, register: ap.Register) -> None:
        self.called("register_fills")

    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object, context: ap.AdaptContext) -> None:
        self.called("adapt_input")

    @ap.hookimpl
    def apportion_before_run(self, request: ap.Request) -> None:
        self.called("before_run")

    @ap.hookimpl
    def apportion_lookup(self, request: ap.Request, session: ap.Session, rows: Any) -> None:
        self.called("lookup")

    @ap.hookimpl
    def apportion_lookup_texts(
        self, request: ap.Request, session: ap.Session, prompts: Sequence[ap.ModelInput], samples: Sequence[int]
    ) -> None:
        self.called("lookup_texts")

    @ap.hookimpl
    def apportion_text_written(
        self, request: ap.Request, session: ap.Session, prompt: ap.ModelInput, sample: int, text: str
    ) -> None:
        self.called("text_written")

    @ap.hookimpl
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch, request: ap.Request) -> None:
        self.called("score")

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        self.called(f"on_progress:{event.stage}")
        self.events.append(event)

    @ap.hookimpl
    def apportion_after_run(self, request: ap.Request, attribution: ap.Attribution) -> None:
        self.called("after_run")


REGISTERED = [
    f"register_{kind}"
    for kind in (
        "inputs", "samplers", "methods", "targets", "visualizers", "backends", "metrics", "segmenters", "fills",
    )
]  # fmt: skip


def test_hooks_are_called_in_the_documented_order() -> None:
    observer = Everything()
    with tiny_explainer(plugins=[observer]) as explainer:
        assert observer.calls == ["configure", *REGISTERED]
        observer.calls.clear()
        explainer.attribute("one two", " three", method="ablation")
    assert observer.calls == [
        "adapt_input", "before_run", "lookup", "on_progress:score", "score", "on_progress:score", "after_run",
        "on_progress:end",
    ]  # fmt: skip
    assert set(VERSION_1) == {name for name in dir(Everything) if name.startswith("apportion_")}, (
        "a hook that no test calls"
    )


def test_hooks_of_texts_are_called_in_the_documented_order() -> None:
    observer = Everything()
    call: dict[str, Any] = {"method": "ablation", "target_fn": "exact_match", "generate": {"max_new_tokens": 2}}
    with tiny_explainer(plugins=[observer]) as explainer:
        observer.calls.clear()
        explainer.attribute("one", " three", **call)
        assert observer.calls == [
            "adapt_input", "on_progress:generate", "lookup_texts", "text_written", "before_run", "lookup_texts",
            "on_progress:score", "text_written", "on_progress:score", "after_run", "on_progress:end",
        ]  # fmt: skip


class RemembersTexts:
    """Knows what comes after the longest prompt; says nothing about others, or too little."""

    def __init__(self, *, all_prompts: bool) -> None:
        self.longest, self.all_prompts = 0, all_prompts

    @ap.hookimpl
    def apportion_lookup_texts(self, prompts: Sequence[ap.ModelInput], samples: Sequence[int]) -> Any:
        self.longest = max(self.longest, *(len(prompt.ids) for prompt in prompts))
        found = [["x"] if len(prompt.ids) == self.longest else [None] for prompt in prompts]
        return found if self.all_prompts else found[1:]


def test_texts_that_are_known_are_not_written() -> None:
    call: dict[str, Any] = {"method": "ablation", "target_fn": "exact_match"}
    with tiny_explainer(plugins=[RemembersTexts(all_prompts=True)]) as explainer:
        result = explainer.attribute("one", "x", **call)
    assert (result.full_value, result.provenance.evaluations, result.provenance.cached) == (1.0, 1, 1)
    wrong = pytest.raises(ap.PluginError, match="must return 1 text, or None in place of one, for each of 1 prompt")
    with tiny_explainer(plugins=[RemembersTexts(all_prompts=False)]) as explainer, wrong:
        explainer.attribute("one", "x", **call)


def test_a_generated_target_is_reported_before_the_run_begins() -> None:
    observer = Everything()
    with tiny_explainer(plugins=[observer]) as explainer:
        observer.calls.clear()
        explainer.attribute("one two", method="ablation", generate={"max_new_tokens": 2})
    assert observer.calls[:3] == ["adapt_input", "on_progress:generate", "before_run"]


def test_a_run_that_fails_still_ends() -> None:
    observer = Everything()
    with tiny_explainer(plugins=[observer]) as explainer, pytest.raises(ap.InputError):
        explainer.attribute("")
    assert observer.calls[-1] == "on_progress:end"
    assert "after_run" not in observer.calls


class Fewer:
    """A plugin written before hooks gained arguments."""

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, batch: ap.ScoringBatch) -> Any:
        scored = yield
        self.shape = tuple(scored.shape)
        return scored


def test_fewer_arguments_are_fine() -> None:
    plugin = Fewer()
    with tiny_explainer(plugins=[plugin]) as explainer:
        explainer.attribute("one two", " ab", method="ablation")
    assert plugin.shape == (3, 3)


class Remembers:
    """Knows some prompts."""

    def __init__(self, value: float, known: int) -> None:
        self.value, self.known = value, known

    @ap.hookimpl
    def apportion_lookup(self, rows: Any) -> torch.Tensor:
        found = torch.full((len(rows), len(rows[0].target)), torch.nan)
        found[: self.known] = self.value
        return found


def test_what_is_known_is_neither_planned_nor_scored() -> None:
    with tiny_explainer(plugins=[Remembers(-1.0, 2)]) as explainer:
        result = explainer.attribute("one two", "x", method="ablation")
    assert (result.provenance.evaluations, result.provenance.cached) == (1, 2)
    assert result.full_value == -1.0
    with tiny_explainer() as explainer:
        assert explainer.attribute("one two", "x", method="ablation").provenance.forwarded_tokens > (
            result.provenance.forwarded_tokens
        )


def test_of_two_that_know_a_row_the_last_is_believed() -> None:
    first, last = Remembers(-1.0, 3), type("Other", (Remembers,), {})(-2.0, 1)
    with tiny_explainer(plugins=[first, last]) as explainer:
        result = explainer.attribute("one two", "x", method="ablation")
    assert result.full_value == -2.0
    assert result.values.tolist() == [-1.0, -1.0]
    assert result.provenance.evaluations == 0


def test_a_wrong_lookup_is_the_plugins_fault() -> None:
    class Wrong:
        @ap.hookimpl
        def apportion_lookup(self, rows: Any) -> torch.Tensor:
            return torch.zeros(1, 1)

    with tiny_explainer(plugins=[Wrong()]) as explainer, pytest.raises(ap.PluginError, match="lookup returned"):
        explainer.attribute("one two", "x", method="ablation")


class Failing:
    """Raises an error in one hook."""

    def __init__(self, hook: str, error: Exception) -> None:
        self.hook, self.error = hook, error

    def fail(self, hook: str) -> None:
        if hook == self.hook:
            raise self.error

    @ap.hookimpl
    def apportion_adapt_input(self) -> None:
        self.fail("apportion_adapt_input")

    @ap.hookimpl
    def apportion_before_run(self) -> None:
        self.fail("apportion_before_run")

    @ap.hookimpl
    def apportion_lookup(self) -> None:
        self.fail("apportion_lookup")

    @ap.hookimpl(wrapper=True)
    def apportion_score(self) -> Any:
        scored = yield
        self.fail("apportion_score")
        return scored

    @ap.hookimpl
    def apportion_after_run(self) -> None:
        self.fail("apportion_after_run")


@pytest.mark.parametrize("hook", [name for name in dir(Failing) if name.startswith("apportion_")])
def test_a_plugin_that_fails_in_a_run_is_named(hook: str) -> None:
    for error, kind, message in (
        (
            ZeroDivisionError("oh"),
            ap.PluginError,
            f"The plugin 'Failing' failed in {hook}: ZeroDivisionError: oh .in fail",
        ),
        (ap.InputError("not this prompt"), ap.InputError, "^not this prompt$"),
    ):
        with tiny_explainer(plugins=[Failing(hook, error)]) as explainer, pytest.raises(kind, match=message):
            explainer.attribute("one two", "x", method="ablation")


def test_the_models_own_errors_are_nobodys_fault() -> None:
    """A wrapper that an error passes through is not blamed for it."""
    with tiny_explainer(plugins=[Failing("", ValueError()), Fewer()]) as explainer:
        explainer.session.close()
        with pytest.raises(ap.BackendError, match="closed"):
            explainer.attribute("one two", "x", method="ablation")


class Odd:
    """Returns objects that are not adapters."""

    def __init__(self, found: object) -> None:
        self.found = found

    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object) -> object:
        return self.found


class OddAdapter:
    features = (ap.Feature("a", "a"),)
    segments = (ap.Segment("a", 3),)

    def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
        return [ap.ModelInput((1,))] * len(mask)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            "x",
            "apportion_adapt_input returned 'x' for this Text; it must return an adapter with `features` and `render`",
        ),
        (OddAdapter(), "a segment of feature 3, but it has 1 feature, numbered from 0"),
    ],
)
def test_adapters_are_held_to_their_protocol(found: object, message: str) -> None:
    with tiny_explainer(plugins=[Odd(found)]) as explainer, pytest.raises(ap.PluginError, match=message):
        explainer.attribute("one two", "x")


def method(**changes: Any) -> ap.Method:
    def run(self: object, game: ap.Game, *, budget: Any, rng: Any) -> ap.Estimate:
        return ap.Estimate(game.values(torch.eye(game.n_features, dtype=torch.bool)))

    parts = {"__doc__": "Odd.", "estimand": "e", "requires": frozenset(), "run": run}
    return type("OddMethod", (), parts | changes)()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requires": []}, r"a frozenset of Capability as requires; it is \[\]"),
        ({"family": 3}, "a string as its family; it is 3"),
        ({"cost": None}, "a string as its cost; it is None"),
        ({"run": lambda self, game: None}, r"cannot be called as run\(game, budget=…, rng=…\)"),
        ({"run": lambda self, game, k=1, *, budget, rng: None}, "has 'k' before the star; options are keyword-only"),
        ({"run": lambda self, game, *, budget, rng, k: None}, "missing a required argument: 'k'"),
        ({"run": lambda self, game, *, budget, rng: ap.Estimate(torch.zeros(2, 2), notes="x")}, "notes must"),
        ({"run": lambda self, game, *, budget, rng: ap.Estimate(torch.zeros(2, 2), extras=3)}, "extras must be a dict"),
    ],
)
def test_methods_are_held_to_their_protocol(changes: dict[str, Any], message: str) -> None:
    with tiny_explainer() as explainer, pytest.raises(ap.PluginError, match=message):
        explainer.attribute("one two", "x", method=method(**changes))


def test_hooks_that_would_never_run_are_refused() -> None:
    class Waits:
        @ap.hookimpl
        async def apportion_before_run(self) -> None: ...

    class Yields:
        @ap.hookimpl
        def apportion_before_run(self) -> Any:
            yield

    class Misspelled:
        def apportion_befor_run(self) -> None: ...

    for plugin, message in (
        (Waits(), "is async, and would never run"),
        (Yields(), "is a generator, and would never run"),
        (Misspelled(), "There is no hook 'apportion_befor_run', and it is not marked .* Did you mean"),
        (Everything, "is a class; pass an object of it"),
    ):
        with pytest.raises(ap.PluginError, match=message):
            load_plugins([plugin])
    with pytest.raises(ap.InputError, match="must be a list of modules or objects"):
        load_plugins(Everything())


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (99, r"written for plugin API version 99, .* with version 1\. Upgrade apportion\."),
        (0, r"written for plugin API version 0, .* Install a newer release of the plugin\."),
        ("1", "must be a whole number such as 1; it is '1'"),
        (True, "must be a whole number"),
    ],
)
def test_plugins_for_other_versions_are_refused(version: object, message: str) -> None:
    plugin = type("Dated", (Everything,), {"APPORTION_API_VERSION": version})()
    with pytest.raises(ap.PluginError, match=message):
        load_plugins([plugin])


def test_a_sampler_named_by_default_is_resolved() -> None:
    class Method:
        """Uses a sampler."""

        estimand, requires = "nothing", frozenset()

        def run(self, game: ap.Game, *, budget: Any, rng: Any, sampler: str = "permutation") -> ap.Estimate:
            assert isinstance(sampler, ap.Sampler)
            return ap.Estimate(game.values(sampler.sample(game.n_features, 8, rng).mask)[: game.n_features])

    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        result = explainer.attribute("one two", "x", method=Method())
        assert result.provenance.options == {"sampler": "permutation"}
        with pytest.raises(ap.UnknownNameError, match="No sampler is called 'permutatoin'"):
            explainer.attribute("one two", "x", method=Method(), sampler="permutatoin")


def test_failures_of_methods_and_adapters_are_sentences() -> None:
    class Failing:
        """Fails before or after it asks."""

        estimand, requires = "x", frozenset[ap.Capability]()

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator, early: bool = False) -> ap.Estimate:
            if not early:
                game.values(torch.ones(1, game.n_features, dtype=torch.bool))
            raise KeyError("boom")

    class Lines:
        """A prompt."""

    class Adapter:
        features = (ap.Feature("a", "a"),)

        def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
            return [1 / 0]

    class Plugin:
        @ap.hookimpl
        def apportion_register_methods(self, register: ap.Register) -> None:
            register("failing", Failing, summary="fails")

        @ap.hookimpl
        def apportion_adapt_input(self, prompt: object, context: ap.AdaptContext) -> Adapter | None:
            return Adapter() if isinstance(prompt, Lines) else None

    with tiny_explainer(plugins=[Plugin()]) as explainer:
        for early in (False, True):
            with pytest.raises(
                ap.PluginError, match=r"^The method 'failing' failed: KeyError: 'boom' \(in run, test_hooks.py, line"
            ) as caught:
                explainer.attribute("one two", " x", method="failing", early=early)
            assert isinstance(caught.value.__cause__, KeyError)
        with pytest.raises(ap.PluginError, match="^The adapter Adapter failed: ZeroDivisionError: .*in render, test_"):
            explainer.attribute(Lines(), " x")


def test_an_error_of_the_model_is_not_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def log_probs(batch: object) -> None:
        raise ConnectionError("the server is gone")

    with tiny_explainer() as explainer:
        monkeypatch.setattr(explainer.session, "log_probs", log_probs)
        with pytest.raises(ConnectionError):
            explainer.attribute("one two", " x", method="ablation")
