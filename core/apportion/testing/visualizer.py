"""What every visualizer keeps."""

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
from apportion.testing.contract import Contract
from apportion.testing.randomness import only_its_own_generator
from apportion.testing.results import opposite, sample_results

__all__ = ["VisualizerContract"]

WIDTHS = (40, 80, 200)
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)


class VisualizerContract(Contract):
    """Subclass it and give a fixture ``visualizer``.

    Figures (anything with ``savefig``), texts (HTML where they have tags) and rich renderables are each looked at in
    their own way.

    Attributes:
        options: options that all checks use.
        shows_names: the names of the features can be read in a text or renderable.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    shows_names: ClassVar[bool] = True

    @pytest.fixture
    def visualizer(self) -> Visualizer:
        """The visualizer to check; yours."""
        raise NotImplementedError("Give a fixture `visualizer` that returns your visualizer.")

    def is_html(self, visualizer: Visualizer) -> bool:
        """Whether it makes HTML: a text with tags, of a result that has none in its names."""
        view = visualizer.render(sample_results()["exact"], **self.options)
        return isinstance(view, str) and "</" in view

    def test_it_says_what_it_is(self, visualizer: Visualizer) -> None:
        """Signature, and documentation of every option."""
        faults = object_faults("visualizers", visualizer)
        assert not faults, f"{type(visualizer).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("name", sample_results())
    def test_every_result_is_shown(self, visualizer: Visualizer, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        """Exact and sampled, one feature and many, zeros and extremes, any language, hostile names."""
        result = sample_results()[name]
        before = pickle.dumps(result)
        view = visualizer.render(result, **self.options)
        assert view is not None, "render() returned None; return the figure, text or renderable."
        check_view(view, html=isinstance(view, str) and self.is_html(visualizer))
        assert pickle.dumps(result) == before, "render() changed the result that it was to show."
        printed = capfd.readouterr()
        assert not printed.out, f"render() printed {printed.out!r:.80}; what it returns is shown by the caller."

    def test_results_from_files_are_shown(self, visualizer: Visualizer, tmp_path: Path) -> None:
        """A result that was saved and read again looks the same."""
        result = sample_results()["sampled"]
        again = Attribution.load(result.save(tmp_path / "result.json"))
        first, second = (visualizer.render(each, **self.options) for each in (result, again))
        check_view(second, html=isinstance(second, str) and self.is_html(visualizer))
        if isinstance(first, str):
            assert first == second, "The same result gave another text after it was saved and loaded."

    def test_the_world_stays_as_it_was(self, visualizer: Visualizer) -> None:
        """No figure stays open in pyplot, no setting of matplotlib changes, nothing is drawn at random."""
        import matplotlib

        settings = matplotlib.rcParams.copy()
        figures = _open_figures()
        with only_its_own_generator():
            check_view(visualizer.render(sample_results()["exact"], **self.options), html=False)
        # Which backend draws is found out when it is first needed.
        changed = [key for key in settings if key != "backend" and matplotlib.rcParams[key] != settings[key]]
        assert not changed, f"render() changed settings of matplotlib: {', '.join(changed)}. Use rc_context."
        assert _open_figures() == figures, "A figure stays open in pyplot. Make a matplotlib.figure.Figure instead."

    def test_names_can_be_read(self, visualizer: Visualizer) -> None:
        """The names of the features stand in a text or renderable."""
        result = sample_results()["exact"]
        view = visualizer.render(result, **self.options)
        text = as_text(view, html=isinstance(view, str) and self.is_html(visualizer))
        if not self.shows_names or text is None:
            pytest.skip("a figure, or a view without names (`shows_names = False`)")
        missing = [name for name in result.feature_names if name not in text]
        assert not missing, f"The names {missing} cannot be read in {text!r:.300}"

    def test_unlike_results_look_unlike(self, visualizer: Visualizer) -> None:
        """Reversed signs can be told from the picture."""
        result = sample_results()["exact"]
        one, other = (visualizer.render(each, **self.options) for each in (result, opposite(result)))
        assert _content(one) != _content(other), "A result and its opposite give the same picture."


def check_view(view: Any, *, html: bool) -> None:
    """A figure draws something, HTML is well formed and escaped, a renderable fits its console."""
    if hasattr(view, "savefig"):
        assert np.ptp(_pixels(view)) > 0, "The figure is empty."
    elif isinstance(view, str):
        assert view.strip(), "The text is empty."
        if html:
            _check_html(view)
    else:
        _check_renderable(view)


def as_text(view: Any, *, html: bool) -> str | None:
    """What can be read in a text or renderable; ``None`` for figures."""
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
    assert "<script>alert" not in view, "A name is not escaped: '<script>' of a feature got into the HTML."
    parser = _Parser()
    parser.feed(view)
    parser.close()
    assert not parser.open, f"Tags stay open: {', '.join(parser.open)}."
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
    """Finds tags that do not match, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Remember what has to be closed."""
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Compare with what was opened last."""
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {'nothing' if not self.open else f'<{self.open[-1]}>'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        """Collect what is read."""
        if "style" not in self.open:
            self.texts.append(data)
