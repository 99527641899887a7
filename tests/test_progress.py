"""Progress: a bar in a terminal, another in a notebook, lines in a pipe once it takes a while."""

from __future__ import annotations

import html.parser
import io
import itertools
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

import apportion as ap
from apportion.protocols.progress import ProgressEvent
from apportion.testing import tiny
from apportion_plugins.progress import ProgressBar
from apportion_plugins.progress.lines import ProgressLines
from apportion_plugins.progress.notebook import NotebookBar, bar_html
from apportion_plugins.progress.rates import State, facts_of
from apportion_plugins.progress.terminal import TerminalBar


def explain(*plugins: object, **options: Any) -> ap.Attribution:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=plugins, progress=False, memory_budget=1)
    return explainer.attribute("a b c", options.pop("target", "x"), **options)


def test_a_terminal_shows_a_bar_and_forgets_it() -> None:
    stream = io.StringIO()
    explain(ProgressBar(console=Console(file=stream, force_terminal=True, width=100)), target=None, method="ablation")
    shown = stream.getvalue()
    assert "generating the target" in shown
    assert "4/4" in shown
    assert shown.endswith("\x1b[2K")  # the last thing is to erase the line


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_done_at_once_has_no_rate() -> None:
    """A method that counts its evaluations after they were made reports all of them in one event."""
    clock, written = Clock(), []
    lines = ProgressLines(written.append, ends=True, clock=clock)
    lines.show(State("scoring", 23, 23))
    clock.now = 1e-6
    lines.show(State("scoring", 23, 23))
    lines.remove()
    assert written == ["scoring 23/23"]


def test_an_estimate_shows_no_progress() -> None:
    """Its values are made up, and its trials are none of the run's prompts."""
    stream = io.StringIO()
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[_lines(stream)], progress=False) as explainer:
        for method in ("kernel_shap", "integrated_gradients", "value_zeroing"):
            explainer.estimate("a b c d", "x", method=method)
        assert not stream.getvalue()
        explainer.attribute("a b c d", "x", method="integrated_gradients", steps=4)
    assert "scoring" in stream.getvalue()
    assert "prompts/s" not in stream.getvalue()


def _lines(stream: io.StringIO) -> ProgressBar:
    return ProgressBar("always", console=Console(file=stream, width=100))


def test_a_pipe_gets_a_line_every_few_seconds_and_fewer_later() -> None:
    clock, written = Clock(), []
    lines = ProgressLines(written.append, clock=clock)
    for second in range(3601):
        clock.now = float(second)
        lines.show(State("scoring", second, 7200))
    lines.remove()
    assert written[:2] == [
        "scoring 5/7,200 · 1.0 prompts/s · 1:59:55 left",
        "scoring 10/7,200 · 1.0 prompts/s · 1:59:50 left",
    ]
    at = [int(line.split()[1].split("/")[0].replace(",", "")) for line in written]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert gaps[0] == 5
    assert gaps[-1] == 60
    assert sorted(gaps) == gaps


def test_short_runs_write_no_lines_unless_ends_are_marked() -> None:
    clock = Clock()
    for ends, shown in (
        (False, []),
        (True, ["prompts 0/4 · 0 evaluations", "prompts 4/4 · 2.0 prompts/s · 0:00 left"]),
    ):
        written: list[str] = []
        lines = ProgressLines(written.append, ends=ends, clock=clock)
        lines.show(State("prompts", 0, 4, "0 evaluations"))
        clock.now += 2
        lines.show(State("prompts", 4, 4))
        lines.remove()
        assert written == shown


def test_what_is_under_way_moves_the_rate_and_not_the_count() -> None:
    clock, written = Clock(), []
    lines = ProgressLines(written.append, clock=clock)
    lines.show(State("prompts", 0, 20))
    clock.now = 8.0
    lines.show(State("prompts", 0, 20, "63 evaluations", share=4.0))
    assert written == ["prompts 0/20 · 2.0 s/prompt · 0:32 left · 63 evaluations"]


def test_what_came_from_the_cache_says_nothing_about_the_rate() -> None:
    """A run that is resumed: its first rows cost no time."""
    clock, written = Clock(), []
    lines = ProgressLines(written.append, clock=clock)
    for done, share, works in ((0, 0.0, False), (4, 2.0, False), (4, 4.0, True)):
        lines.show(State("prompts", done, 20, share=share, works=works))
        clock.now += 6.0
    lines.show(State("prompts", 6, 20, share=2.0))
    assert written == [
        "prompts 4/20",
        "prompts 4/20 · 3.0 s/prompt · 0:36 left",
        "prompts 6/20 · 6.0 s/prompt · 1:12 left",
    ]
    observer = ProgressBar(console=Console(file=(stream := io.StringIO())), clock=clock)
    observer.apportion_on_progress(ProgressEvent("items", done=0, total=9))
    for evaluations, rate in ((0, False), (5, True)):
        clock.now += 30
        event = ProgressEvent("items", done=3, total=9, share=0.2 * evaluations, evaluations=evaluations)
        observer.apportion_on_progress(event)
        assert ("left" in stream.getvalue()) == rate


def test_lines_of_a_run_in_a_pipe() -> None:
    stream = io.StringIO()
    explain(ProgressBar("always", console=Console(file=stream)), target=None, method="ablation")
    assert stream.getvalue().splitlines()[0] == "generating the target"
    assert stream.getvalue().splitlines()[-1].startswith("scoring 4/4 · ")
    with pytest.raises(ap.InputError, match="progress='sometimes' must be"):
        ProgressBar("sometimes")


def test_a_bar_never_wraps() -> None:
    stream = io.StringIO()
    bar = TerminalBar(Console(file=stream, force_terminal=True, width=60))
    bar.show(State("prompts", 12_345, 20_000, "1,234,567 evaluations", share=3.5))
    bar.remove()
    assert stream.getvalue().count("\n") == 1, "the one that ends it"


def test_a_short_run_shows_nothing_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    explain(ProgressBar())
    stream = io.StringIO()
    explain(ProgressBar(console=Console(file=stream)))
    assert (*capsys.readouterr(), stream.getvalue()) == ("", "", "")
    assert "IPython" not in sys.modules


class Page:
    """A notebook's page: what stands at each place, and how often it was told."""

    def __init__(self) -> None:
        self.places: list[Mapping[str, str]] = []
        self.messages: list[str] = []
        self.cell, self.now = 1, 0.0

    def display(self, bundle: Mapping[str, str]) -> Place:
        self.places.append(bundle)
        self.messages.append(bundle["text/plain"])
        return Place(self, len(self.places) - 1)

    def bar(self) -> NotebookBar:
        return NotebookBar(self.display, lambda: self.cell, lambda: self.now)


class Place:
    def __init__(self, page: Page, number: int) -> None:
        self.page, self.number = page, number

    def update(self, bundle: Mapping[str, str], *, raw: bool) -> None:
        assert raw
        self.page.places[self.number] = bundle
        self.page.messages.append(bundle["text/plain"])


EMPTY = {"text/html": "", "text/plain": ""}


def test_a_notebook_shows_a_bar_at_most_five_times_a_second() -> None:
    page = Page()
    bar = page.bar()
    for done in range(101):
        page.now = done / 32
        bar.show(State("scoring", done, 100))
    assert page.messages == [f"scoring {done}/100" for done in range(0, 101, 7)]
    assert "98/100 · 32.0 prompts/s · 0:00 left" in page.places[0]["text/html"]
    bar.show(State("scoring", 0, 100))  # another request for values begins at once
    assert page.messages[-1] == "scoring 0/100"
    bar.remove()
    assert page.places == [EMPTY]


def test_runs_of_one_cell_share_one_place() -> None:
    page = Page()
    bar = page.bar()
    for _ in range(3):
        bar.show(State("scoring", 0, 5))
        bar.remove()
    page.cell = 2
    bar.show(State("scoring", 0, 5))
    assert [place["text/plain"] for place in page.places] == ["", "scoring 0/5"]


def test_nothing_is_removed_that_was_not_shown() -> None:
    page = Page()
    page.bar().remove()
    assert page.places == []


class InNotebook(ProgressBar):
    """As in a notebook, on a page of the test."""

    def __init__(self, page: Page) -> None:
        super().__init__(console=Console(file=io.StringIO(), force_jupyter=True))
        self._notebook = page.bar()


def test_a_run_in_a_notebook_leaves_nothing() -> None:
    page = Page()
    explain(InNotebook(page), target=None, method="ablation")
    assert page.messages == ["generating the target", "scoring 0/4", ""]
    assert page.places == [EMPTY]


class Failing:
    @ap.hookimpl
    def apportion_score(self) -> None:
        raise RuntimeError("no luck")


def test_a_failed_run_in_a_notebook_leaves_nothing() -> None:
    page = Page()
    with pytest.raises(ap.PluginError, match="no luck"):
        explain(InNotebook(page), Failing())
    assert page.places == [EMPTY]


class Tags(html.parser.HTMLParser):
    """Which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("scoring", 0, 64, 0.0), "0/64<"),
        (("scoring", 12345, 20000, 4000.0), "12,345/20,000 · 3.1 prompts/s · 41:20 left"),
        (("scoring", 1, 20000, 4.0), "1/20,000 · 4.0 s/prompt · 22:13:16 left"),
        (("prompts", 2, 4, 1.0, "64 evaluations, 64.0/s"), "2/4 · 2.0 prompts/s · 0:01 left · 64 evaluations, 64.0/s<"),
        (("prompts", 2, None, 1.0, "64 evaluations"), "2 · 64 evaluations"),
        (("generating", 0, None, 3.0), "generating"),
        (("scoring", 0, 0, 0.0), "0/0"),
        (("a < b", 1, 2, 0.0), "a &lt; b"),
    ],
)
def test_the_bar_is_html_in_the_colours_of_the_page(arguments: tuple[Any, ...], shown: str) -> None:
    label, done, total, seconds, *more = arguments
    page = bar_html(State(label, done, total, *more), facts_of(done, total, seconds))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert shown in page
    assert "currentColor" in page
    assert "#" not in page and "rgb" not in page
