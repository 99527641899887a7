"""The contract of visualizers."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from apportion.hooks.object_check import object_faults
from apportion.protocols.visualizers import Visualizer
from apportion.results.attribution import Attribution
from apportion.results.html_view import HtmlView
from apportion.testing.contract import Contract
from apportion.testing.randomness import only_its_own_generator
from apportion.testing.results import opposite, sample_results, with_a_picture

__all__ = ["VisualizerContract"]

WIDTHS = (40, 80, 200)
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)


class VisualizerContract(Contract):
    """Contract of visualizers. Subclass it and provide a fixture ``visualizer``.

    Figures (anything with ``savefig``), strings (HTML if they have tags) and rich renderables are each checked in their
    own way. HTML must be an ``HtmlView``, which notebooks display and files hold as a page.

    Attributes:
        options: options that all checks use.
        shows_names: the names of the features appear in a string or renderable.
        of_pictures: the view is of results whose prompts have pictures, and of no others.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    shows_names: ClassVar[bool] = True
    of_pictures: ClassVar[bool] = False

    @pytest.fixture
    def visualizer(self) -> Visualizer:
        """Your visualizer."""
        raise NotImplementedError("Define a fixture `visualizer` that returns your visualizer.")

    def sample(self, name: str) -> Attribution:
        """A sample result by its name."""
        result = sample_results()[name]
        return with_a_picture(result) if self.of_pictures else result

    def is_html(self, visualizer: Visualizer) -> bool:
        """True if the view is HTML: a string with tags, for a result without tags in its names."""
        view = visualizer.render(self.sample("exact"), **self.options)
        return isinstance(view, str) and "</" in view

    def test_it_says_what_it_is(self, visualizer: Visualizer) -> None:
        """Signature, and documentation of every option."""
        faults = object_faults("visualizers", visualizer)
        assert not faults, f"{type(visualizer).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("name", sample_results())
    def test_every_result_is_shown(self, visualizer: Visualizer, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        """Sample results are shown: exact and sampled, one feature and many, extremes, any language, hostile names."""
        result = self.sample(name)
        before = pickle.dumps(result)
        view = visualizer.render(result, **self.options)
        assert view is not None, "render() returned None; return the figure, string or renderable."
        check_view(view, html=isinstance(view, str) and self.is_html(visualizer))
        assert pickle.dumps(result) == before, "render() modified the result."
        printed = capfd.readouterr()
        assert not printed.out, f"render() printed {printed.out!r:.80}; it must return the view instead."

    def test_notebooks_display_html(self, visualizer: Visualizer) -> None:
        """HTML is an ``HtmlView``: notebooks display it instead of its source, and files hold whole pages."""
        view = visualizer.render(self.sample("exact"), **self.options)
        if not isinstance(view, str) or not self.is_html(visualizer):
            pytest.skip("a figure, a renderable or plain text")
        assert isinstance(view, HtmlView), "HTML is returned as a plain str; return ap.HtmlView(html) instead."

    def test_results_from_files_are_shown(self, visualizer: Visualizer, tmp_path: Path) -> None:
        """A result that was saved and loaded looks the same."""
        result = self.sample("sampled")
        again = Attribution.load(result.save(tmp_path / "result.json", pixels=True))
        first, second = (visualizer.render(each, **self.options) for each in (result, again))
        check_view(second, html=isinstance(second, str) and self.is_html(visualizer))
        if isinstance(first, str):
            assert first == second, "The result gave a different string after it was saved and loaded."

    def test_the_world_stays_as_it_was(self, visualizer: Visualizer) -> None:
        """No figure stays open in pyplot, matplotlib's settings do not change, and no random generator is used."""
        import matplotlib

        settings = matplotlib.rcParams.copy()
        figures = _open_figures()
        with only_its_own_generator():
            check_view(visualizer.render(self.sample("exact"), **self.options), html=False)
        # Matplotlib chooses its backend on first use.
        changed = [key for key in settings if key != "backend" and matplotlib.rcParams[key] != settings[key]]
        assert not changed, f"render() changed settings of matplotlib: {', '.join(changed)}. Use rc_context."
        assert _open_figures() == figures, "A figure stays open in pyplot. Make a matplotlib.figure.Figure instead."

    def test_names_can_be_read(self, visualizer: Visualizer) -> None:
        """The names of the features appear in a string or renderable."""
        result = self.sample("exact")
        view = visualizer.render(result, **self.options)
        text = as_text(view, html=isinstance(view, str) and self.is_html(visualizer))
        if not self.shows_names or text is None:
            pytest.skip("a figure, or a view without names (`shows_names = False`)")
        missing = [name for name in result.feature_names if name not in text]
        assert not missing, f"The names {missing} are missing from {text!r:.300}"

    def test_unlike_results_look_unlike(self, visualizer: Visualizer) -> None:
        """A result with reversed signs looks different."""
        result = self.sample("exact")
        one, other = (visualizer.render(each, **self.options) for each in (result, opposite(result)))
        assert _content(one) != _content(other), "A result and its opposite look the same."


def check_view(view: Any, *, html: bool) -> None:
    """Check that a figure is not empty, HTML is well formed and escaped, and a renderable fits its console."""
    if hasattr(view, "savefig"):
        assert np.ptp(_pixels(view)) > 0, "The figure is empty."
    elif isinstance(view, str):
        assert view.strip(), "The string is empty."
        if html:
            _check_html(view)
    else:
        _check_renderable(view)


def as_text(view: Any, *, html: bool) -> str | None:
    """The visible text of a string or renderable; ``None`` for figures."""
    if hasattr(view, "savefig"):
        return None
    if isinstance(view, str) and not html:
        return view
    if isinstance(view, str):
        parser = _Parser()
        parser.feed(view)
        return "".join(parser.texts)
    return _printed(view, 200)


def _content(view: Any) -> str | bytes:
    if hasattr(view, "savefig"):
        return _pixels(view).tobytes()
    if isinstance(view, str):
        return view
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", record=True)
    console.print(view)
    return console.export_text(styles=True)


def _pixels(figure: Any) -> np.ndarray:
    import matplotlib.image

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=50)
    stream.seek(0)
    return np.asarray(matplotlib.image.imread(stream))


def _check_html(view: str) -> None:
    assert "<script>alert" not in view, "A feature's name is not escaped: '<script>' is in the HTML."
    parser = _Parser()
    parser.feed(view)
    parser.close()
    assert not parser.open, f"Tags are not closed: {', '.join(parser.open)}."
    assert not parser.faults, f"The HTML is not well formed: {parser.faults[0]}."


def _check_renderable(view: Any) -> None:
    for width in WIDTHS:
        lines = _printed(view, width).splitlines()
        assert any(line.strip() for line in lines), "The renderable prints nothing."
        longest = max(lines, key=cell_len)
        assert cell_len(longest) <= width, (
            f"A line has {cell_len(longest)} columns on a console of {width}: {longest!r}"
        )


def _printed(view: Any, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(view)
    return stream.getvalue()


def _open_figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else list(pyplot.get_fignums())


class _Parser(HTMLParser):
    """Finds mismatched tags, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Record an open tag."""
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Compare with the tag that was opened last."""
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {'nothing' if not self.open else f'<{self.open[-1]}>'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        """Collect visible text."""
        if "style" not in self.open:
            self.texts.append(data)
