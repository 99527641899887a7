"""Many prompts: the numbers of single runs, in fewer batches, whatever happens on the way."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import apportion as ap
from apportion.runs.coroutine import questions_of
from apportion.testing import tiny
from apportion_backends.torch import model_session
from apportion_plugins.cache import EvaluationCache
from apportion_plugins.progress import ProgressBar

PROMPTS = [f"{name} plays {what} and" for name, what in zip(["Ann", "Bo", "Cy", "Di", "Ed"], "abcde", strict=True)]


class Watcher:
    """What observers see."""

    def __init__(self) -> None:
        self.batches: list[ap.ScoringBatch] = []
        self.events: list[ap.ProgressEvent] = []
        self.before: list[ap.Request] = []
        self.after: list[ap.Request] = []
        self.threads: set[str] = set()

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, batch: ap.ScoringBatch, request: ap.Request) -> Iterator[None]:
        self.threads.add(threading.current_thread().name)
        assert request.target.ids == batch.rows[0].target or request.target.contrast is not None
        found = yield
        self.batches.append(batch)
        return found

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        self.events.append(event)

    @ap.hookimpl
    def apportion_before_run(self, request: ap.Request) -> None:
        self.before.append(request)

    @ap.hookimpl
    def apportion_after_run(self, request: ap.Request) -> None:
        self.after.append(request)

    @property
    def tokens(self) -> int:
        """That packed batches had to read, each distinct beginning of a batch once."""
        return sum(len({row.read[:i] for row in b.rows for i in range(1, len(row.read) + 1)}) for b in self.batches)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def watched(watcher: Watcher) -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[watcher], progress=False)


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    """Of runs; libraries keep some of their own."""
    yield
    assert [thread for thread in threading.enumerate() if thread.name == "apportion-run"] == []


def assert_same(one: ap.Attribution, other: ap.Attribution) -> None:
    np.testing.assert_allclose(one.token_values, other.token_values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-12)
    assert (one.std_error is None) == (other.std_error is None)
    if one.std_error is not None:
        np.testing.assert_allclose(one.std_error, other.std_error, rtol=0, atol=1e-9)
    for fact in ("evaluations", "cached", "method", "options", "seed", "notes", "target_fn"):
        assert getattr(one.provenance, fact) == getattr(other.provenance, fact), fact


# --- the numbers of single runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shared",
    [
        {"target": " x"},
        {"target": " xyz", "method": "kernel_shap", "budget": 12, "seed": 3},
        {"target": " x", "method": "permutation", "until": 0.5},
        {"target": " x", "method": "hierarchical"},
        {"target": " x", "method": "gp_shap", "budget": 10},
        {"target": " x", "method": "reagent", "budget": 40},
        {"target": None, "generate": {"max_new_tokens": 2}},
        {"target": " x", "target_fn": "contrast_log_prob_diff", "contrast": " yz"},
        {"target": " x", "target_fn": "entropy"},
        {"target": " x", "target_fn": "pcxmi"},
        {"target": " x", "target_fn": lambda logits: logits[:, :, 7]},
    ],
    ids=lambda shared: f"{shared.get('method', 'auto')}-{shared.get('target_fn', 'log_prob')}".split(" at ")[0],
)
def test_the_numbers_are_those_of_single_runs(explainer: ap.Explainer, shared: dict[str, Any]) -> None:
    together = list(explainer.attribute_many(PROMPTS[:3], at_once=2, **shared))
    for prompt, result in zip(PROMPTS, together, strict=False):
        assert_same(result, explainer.attribute(prompt, **shared))


def test_items_have_arguments_of_their_own(explainer: ap.Explainer) -> None:
    template = ap.Template("{a} likes {b}", {"a": "Ann", "b": "tea"}, {"a": ["Bo", "Cy"]})
    items = [
        {"prompt": "a b c", "target": " y", "seed": 5},
        template,
        {"prompt": "a b", "method": "ablation"},
        {"prompt": "a b c d e f", "method": "kernel_shap", "sampler": "leverage", "budget": 20},
    ]
    found = list(explainer.attribute_many(iter(items), target=" x", seed=1))
    assert [r.target_text for r in found] == [" y", " x", " x", " x"]
    assert [r.provenance.seed for r in found] == [5, 1, 1, 1]
    assert_same(found[0], explainer.attribute("a b c", " y", seed=5))
    assert_same(found[1], explainer.attribute(template, " x", seed=1))
    assert_same(found[2], explainer.attribute("a b", " x", method="ablation", seed=1))
    assert_same(found[3], explainer.attribute(**items[3], target=" x", seed=1))


def test_results_can_be_refined_and_judged(explainer: ap.Explainer) -> None:
    call = {"target": " x", "method": "kernel_shap"}
    first, _ = explainer.attribute_many(["a b c d e f", "a b"], budget=12, **call)
    assert_same(explainer.refine(first, budget=30), explainer.attribute("a b c d e f", budget=30, **call))
    assert explainer.evaluate(first, ["deletion"]).measurements["deletion"]


@pytest.mark.parametrize("options", [{"memory_budget": 1}, {"share_prefixes": False}])
@pytest.mark.parametrize("family", ["gpt2", "mamba", "gemma3"])
def test_other_layouts(family: str, options: dict[str, Any]) -> None:
    pair = (tiny.model(family), tiny.tokenizer())
    with ap.Explainer(pair, progress=False, **options) as explainer:
        for prompt, result in zip(PROMPTS, explainer.attribute_many(PROMPTS, target=" x"), strict=True):
            assert_same(result, explainer.attribute(prompt, " x"))


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_rows_of_several_prompts_share_batches(watched: ap.Explainer, watcher: Watcher) -> None:
    single = [watched.attribute(prompt, " x") for prompt in PROMPTS]
    alone, watcher.batches = len(watcher.batches), []
    many = list(watched.attribute_many(PROMPTS, target=" x"))
    assert (alone, len(watcher.batches)) == (5, 1)
    assert watcher.threads == {threading.current_thread().name}
    read = sum(r.provenance.forwarded_tokens for r in many)
    assert read == watcher.tokens < sum(r.provenance.forwarded_tokens for r in single)


def test_what_two_ask_at_once_is_read_once(watched: ap.Explainer, watcher: Watcher) -> None:
    first, second, other = watched.attribute_many([PROMPTS[0], PROMPTS[0], PROMPTS[1]], target=" x")
    assert_same(first, second)
    # 16 of each, of which the two prompts share " and", "plays", "plays and" and nothing at all.
    assert sum(batch.n_rows for batch in watcher.batches) == 16 + 16 - 4
    assert second.provenance.evaluations == 16
    assert second.provenance.forwarded_tokens == 0
    assert first.provenance.forwarded_tokens + other.provenance.forwarded_tokens == watcher.tokens


def test_targets_may_differ_within_a_batch(watched: ap.Explainer, watcher: Watcher) -> None:
    items = [{"prompt": prompt, "target": " x" * (1 + i)} for i, prompt in enumerate(PROMPTS)]
    found = list(watched.attribute_many(items, method="ablation"))
    assert len(watcher.batches) == 1
    for item, result in zip(items, found, strict=True):
        assert_same(result, watched.attribute(**item, method="ablation"))


class Crowded:
    """Memory runs out on batches of more than ``most`` rows, or on a certain prompt."""

    def __init__(self, most: int, never: tuple[int, ...] = ()) -> None:
        self.most, self.never = most, never

    @ap.hookimpl(tryfirst=True)
    def apportion_score(self, batch: ap.ScoringBatch) -> None:
        prompts = [row.prompt for row in batch.rows]
        if len(prompts) > self.most or any(prompt[-len(self.never) :] == self.never for prompt in prompts):
            raise ap.BatchTooLargeError("too much")


def crowded(most: int, never: str = "") -> ap.Explainer:
    ids = tuple(tiny.tokenizer()(never)["input_ids"]) or (-1,)
    return ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[Crowded(most, ids)], progress=False)


def test_memory_that_runs_out_is_halved_for_all() -> None:
    results = list(crowded(3).attribute_many(PROMPTS[:2], target=" x", method="ablation"))
    assert all("Memory ran out" in result.provenance.notes[-1] for result in results)
    assert [result.provenance.evaluations for result in results] == [5, 5]


def test_a_failure_in_a_shared_batch_is_its_owners(explainer: ap.Explainer) -> None:
    found = list(crowded(99, "b").attribute_many(["a c", "a b", "d e"], target=" x", on_error="return"))
    assert isinstance(found[1], ap.BatchTooLargeError)
    for prompt, result in (("a c", found[0]), ("d e", found[2])):
        assert isinstance(result, ap.Attribution)
        assert abs(result.values - explainer.attribute(prompt, " x").values).max() < 1e-12
        assert result.provenance.evaluations == 4


# --- order and errors ------------------------------------------------------------------------------------------------


def test_results_come_in_order_and_are_told_as_they_end(explainer: ap.Explainer) -> None:
    slow = {"prompt": "a b c d e f g h", "method": "permutation", "until": 1e-9, "budget": 200}
    ended: list[int] = []
    results = explainer.attribute_many(
        [slow, "a b", "c d", "e f"], target=" x", at_once=2, on_finish=lambda number, result: ended.append(number)
    )
    assert [len(result.features) for result in results] == [8, 2, 2, 2]
    assert ended == [1, 2, 3, 0]


def test_a_function_for_outcomes_that_fails_is_named(explainer: ap.Explainer) -> None:
    def tell(number: int, result: object) -> None:
        raise KeyError("nobody listens")

    results = explainer.attribute_many(["a b", "c d"], target=" x", on_finish=tell)
    with pytest.raises(ap.InputError, match="'tell' given as on_finish failed on the outcome of item 0: KeyError: "):
        next(iter(results))


def test_nothing_begins_before_it_is_asked_for(watched: ap.Explainer, watcher: Watcher) -> None:
    taken: list[int] = []

    def prompts() -> Iterator[str]:
        for i in range(100):
            taken.append(i)
            yield f"a b {i}"

    results = watched.attribute_many(prompts(), target=" x", at_once=3)
    assert (taken, watcher.events) == ([], [])
    next(results)
    assert len(taken) <= 6
    results.close()
    assert len(taken) <= 6


BAD = [
    ({"prompt": "a b", "methd": "x"}, "attribute() has no argument 'methd'. Did you mean 'method'?"),
    ({"target": "x"}, "In prompts[1]: A dict in place of a prompt must hold arguments of attribute()"),
    ({"prompt": "a b", "at_once": 3}, "at_once"),
    ("", "In prompts[1]: The prompt must not be empty"),
    ({"prompt": "a b", "method": "shaply"}, "Did you mean 'shapley'?"),
    ({"prompt": "a b c d", "method": "shapley", "budget": 3}, "In prompts[1]: "),
    (7, "In prompts[1]: This int is not a prompt: 7"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=lambda value: str(value)[:30])
def test_an_error_is_raised_at_its_turn_with_its_number(watched: ap.Explainer, bad: object, message: str) -> None:
    results = watched.attribute_many(["a b", bad, "c d"], target=" x")
    assert next(results).feature_names == ("a", "b")
    with pytest.raises(ap.ApportionError) as caught:
        next(results)
    assert message in str(caught.value)
    with pytest.raises(StopIteration):
        next(results)


def test_after_an_error_nothing_more_begins(watched: ap.Explainer, watcher: Watcher) -> None:
    with pytest.raises(ap.InputError):
        list(watched.attribute_many(["a b", "", *PROMPTS], target=" x", at_once=2))
    assert len(watcher.before) == 1
    assert [e.stage for e in watcher.events].count("end") == 2
    assert isinstance(watcher.events[-1].error, ap.InputError)


def test_errors_can_be_returned(explainer: ap.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks:
        estimand, requires = "nothing", frozenset()

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
            game.values(torch.ones(1, game.n_features, dtype=torch.bool))
            raise ZeroDivisionError("by design")

    items = ["a b", "", {"prompt": "c d", "method": Breaks()}, "e f"]
    found = list(explainer.attribute_many(items, target=" x", on_error="return"))
    assert [type(one) for one in found] == [ap.Attribution, ap.InputError, ap.PluginError, ap.Attribution]
    with pytest.raises(
        ap.PluginError, match=r"In prompts\[0\]: The method 'Breaks' failed: ZeroDivisionError: by design"
    ):
        list(explainer.attribute_many(items[2:], target=" x"))

    def log_probs(batch: object) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(explainer.session, "log_probs", log_probs)
    with pytest.raises(ConnectionError) as caught:
        list(explainer.attribute_many(["a b"], target=" x"))
    assert caught.value.__notes__ == ["This happened in prompts[0] of attribute_many."]


class Table(list[str]):
    """Iterates over its columns, as pandas and others have it."""

    columns = ("prompt",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": "a b"}, "takes a list (or any iterable) of prompts, not 'a b'"),
        ({"prompts": {"prompt": "a"}}, "takes a list"),
        ({"prompts": 3}, "takes a list"),
        ({"prompts": Table([])}, "a Table yields its columns. Pass its rows, such as df.to_dict('records')"),
        ({"prompts": [], "at_once": 0}, "at_once=0 must be a whole number of at least 1"),
        ({"prompts": [], "on_error": "skip"}, "on_error='skip' must be 'raise' or 'return'"),
        ({"prompts": [], "on_finish": 3}, "on_finish=3 must be a function"),
        ({"prompts": [], "prompt": "a"}, "takes the prompts as its first argument"),
    ],
)
def test_what_cannot_work_is_refused_at_once(explainer: ap.Explainer, arguments: Any, message: str) -> None:
    with pytest.raises(ap.InputError) as caught:
        explainer.attribute_many(**arguments)
    assert message in str(caught.value)
    assert list(explainer.attribute_many([])) == []


# --- ending early ----------------------------------------------------------------------------------------------------


class Interrupts:
    """Ctrl-C in the third batch."""

    def __init__(self) -> None:
        self.batches = 0

    @ap.hookimpl(tryfirst=True)
    def apportion_score(self) -> None:
        self.batches += 1
        if self.batches == 3:
            raise KeyboardInterrupt


def test_closing_early_ends_everything(watched: ap.Explainer, watcher: Watcher) -> None:
    with contextlib.closing(watched.attribute_many(PROMPTS, target=" x", method="permutation", at_once=2)) as results:
        next(results)
    ends = [event for event in watcher.events if event.stage == "end"]
    assert len(ends) == len(watcher.before)
    assert watcher.events[-1].stage == "close"
    assert watcher.events[-1].error is None
    assert watched.session.kept is None
    assert_same(watched.attribute("a b", " x"), watched.attribute("a b", " x"))


def test_an_interrupt_ends_everything(watcher: Watcher) -> None:
    pair = (tiny.model(), tiny.tokenizer())
    explainer = ap.Explainer(pair, plugins=[watcher, Interrupts()], progress=False, memory_budget=1)
    with pytest.raises(KeyboardInterrupt):
        list(explainer.attribute_many(PROMPTS, target=" x"))
    ends = [event for event in watcher.events if event.stage in ("end", "close")]
    assert all(isinstance(event.error, KeyboardInterrupt) for event in ends)
    assert len(ends) == 6
    assert watcher.after == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_while_a_method_computes(watched: ap.Explainer, watcher: Watcher) -> None:
    class Computes:
        estimand, requires = "nothing", frozenset()

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
            game.values(torch.ones(1, game.n_features, dtype=torch.bool))
            signal.raise_signal(signal.SIGINT)  # the handler runs in the main thread, which waits
            time.sleep(0.2)
            game.values(torch.zeros(1, game.n_features, dtype=torch.bool))
            raise AssertionError("it went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(watched.attribute_many([{"prompt": "a b", "method": Computes()}, "c d", "e f"], target=" x"))
    finally:
        signal.signal(signal.SIGINT, before)
    ends = [event for event in watcher.events if event.stage == "end"]
    assert [type(event.error) for event in ends] == [KeyboardInterrupt] * 3
    assert not any(thread.name == "apportion-run" for thread in threading.enumerate())


def test_an_abandoned_iterator_ends_its_runs(watched: ap.Explainer) -> None:
    stubborn: list[str] = []

    class Stubborn:
        estimand, requires = "nothing", frozenset()

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
            for on in (True, False):
                try:
                    game.values(torch.full((1, game.n_features), on))
                except Exception:
                    stubborn.append("not an ordinary error")
            return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))

    items = ["a b", *[{"prompt": "c d e", "method": Stubborn()}] * 3]
    results = watched.attribute_many(items, target=" x", method="ablation")
    next(results)
    del results
    assert stubborn == []


# --- handing over ----------------------------------------------------------------------------------------------------


def test_a_function_as_a_generator() -> None:
    def function(ask: Any) -> str:
        assert ask("one?") == 1
        with contextlib.suppress(ValueError):
            ask("two?")
        return "done"

    talk = questions_of(function)
    assert next(talk) == "one?"
    assert talk.send(1) == "two?"
    with pytest.raises(StopIteration) as stop:
        talk.throw(ValueError("no"))
    assert stop.value.value == "done"


def test_a_function_that_asks_from_threads_of_its_own() -> None:
    def function(ask: Any) -> list[int]:
        found: list[int] = []
        threads = [threading.Thread(target=lambda i=i: found.append(ask(i))) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    talk = questions_of(function)
    question = next(talk)
    try:
        while True:
            time.sleep(0.001)
            question = talk.send(question * 10)
    except StopIteration as stop:
        assert sorted(stop.value) == [0, 10, 20, 30]


# --- observers -------------------------------------------------------------------------------------------------------


def test_observers_see_each_run_and_all_of_them(watched: ap.Explainer, watcher: Watcher) -> None:
    results = list(watched.attribute_many(PROMPTS, target=" x", at_once=2))
    stages = [event.stage for event in watcher.events]
    assert (stages[0], stages[-1]) == ("items", "close")
    items = [event for event in watcher.events if event.stage == "items"]
    assert {event.total for event in items} == {5}
    assert [event.done for event in items] == sorted(event.done for event in items)
    assert items[-1].evaluations == sum(result.provenance.evaluations for result in results) == 80
    assert len(watcher.before) == len(watcher.after) == stages.count("end") == 5
    for request in watcher.before:
        own = [event for event in watcher.events if event.request is request]
        assert own[-1].stage == "end"
        assert [event.done for event in own if event.stage == "score"] == [0, 16]
    next(watched.attribute_many(iter(PROMPTS), target=" x"))
    assert {event.total for event in watcher.events[len(stages) :] if event.stage == "items"} == {0}


def test_the_run_log_has_a_line_for_each(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    with ap.Explainer((tiny.model(), tiny.tokenizer()), run_log=path, progress=False) as explainer:
        items = ["a b", "", "c d", {"prompt": "e f", "budget": 1, "method": "shapley"}, "g h"]
        found = list(explainer.attribute_many(items, target=" x", on_error="return"))
        next(explainer.attribute_many(PROMPTS, target=" x", method="permutation", at_once=2))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = {line["request"]["prompt"]["text"]: line for line in lines[:5] if line["request"]["prompt"]}
    assert set(first) >= {"a b", "c d", "g h"}
    for result in (found[0], found[2], found[4]):
        line = first[" ".join(result.feature_names)]
        assert line["status"] == "ok"
        assert (line["evaluations"], line["batches"]) == (4, 1)
        assert line["forwarded_tokens"] == result.provenance.forwarded_tokens
    assert sorted(line["status"] for line in lines[:5]) == ["failed", "failed", "ok", "ok", "ok"]
    assert [line["status"] for line in lines[5:]].count("interrupted") >= 1


def test_the_cache_takes_one_checksum_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    real = model_session.model_checksum
    monkeypatch.setattr(model_session, "model_checksum", lambda model: taken.append(model) or real(model))
    cache = EvaluationCache(tmp_path / "cache.sqlite3")
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[cache], progress=False) as explainer:
        first = list(explainer.attribute_many(PROMPTS, target=" x", at_once=2, method="permutation", budget=12))
        assert len(taken) == 1
        second = list(explainer.attribute_many(PROMPTS, target=" x", at_once=3, method="permutation", budget=12))
        assert len(taken) == 2
        explainer.attribute(PROMPTS[0], " x")
        assert len(taken) == 3
    assert [r.provenance.evaluations for r in second] == [0] * 5
    # What one prompt and another share is scored for the first and recalled for the second.
    spent = [r.provenance.evaluations + r.provenance.cached for r in first]
    assert [r.provenance.cached for r in second] == spent
    for one, other in zip(first, second, strict=True):
        assert (one.values == other.values).all()


def test_a_bar_counts_prompts(tmp_path: Path) -> None:
    stream = io.StringIO()
    bar = ProgressBar(console=Console(file=stream, force_terminal=True, width=120))
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[bar], progress=False) as explainer:
        list(explainer.attribute_many(PROMPTS, target=" x", at_once=2))
    shown = stream.getvalue()
    assert "5/5" in shown
    assert "80 evaluations" in shown
    assert "scoring" not in shown
    assert shown.endswith("\x1b[2K")


@pytest.mark.parametrize("budget", [None, 12])
def test_prompts_under_way_count_in_parts(budget: int | None) -> None:
    """Rows that share batches end together; what is reported in between moves on with every batch."""
    events: list[ap.ProgressEvent] = []

    class Watch:
        @ap.hookimpl
        def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
            if event.stage == "items":
                events.append(event)

    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[Watch()], memory_budget=1) as explainer:
        list(explainer.attribute_many(["a b c d e", "f g h i j", "k l m n o"], target=" x", budget=budget, at_once=3))
    moved = [event.done + event.share for event in events]
    before = [amount for event, amount in zip(events, moved, strict=True) if not event.done]
    assert len({round(amount, 2) for amount in before}) > 5
    assert all(b >= a - 0.2 for a, b in itertools.pairwise(moved))
    assert moved[-1] == 3


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_prompts_that_break_off_end_what_is_under_way(explainer: ap.Explainer, on_error: str) -> None:
    def prompts() -> Iterator[str]:
        yield from ("a b", "c d", "e f")
        raise OSError("the file is gone")

    found = []
    with pytest.raises(OSError, match="the file is gone") as caught:
        for result in explainer.attribute_many(prompts(), target=" x", method="ablation", on_error=on_error):
            found.append(result)
    assert len(found) == 3
    assert "after 3 of them" in caught.value.__notes__[0]


def test_an_iterator_left_open_at_the_end_of_a_program_is_closed_in_time() -> None:
    code = (
        "import apportion as ap\nfrom apportion.testing import tiny\n"
        "explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False)\n"
        "results = explainer.attribute_many(['a b', 'c d', 'e f'], target=' x', at_once=2)\nnext(results)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_while_a_run_is_started_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(questions_of(lambda ask: ask(1)))
    assert not [thread for thread in threading.enumerate() if thread.name == "apportion-run"]
