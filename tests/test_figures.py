"""Figures for publications: fonts in files, titles, sizes, labels."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

import apportion as ap
from apportion.cli import main
from apportion.testing import sample_results
from apportion_plugins.visualizers.labels import cut, ellipsis, runs
from forks import Forks
from test_visualizers import CASES, grouped, of_words, texts_of

MARKS = "\u2066\u2067\u2068\u2069\u200e\u200f"


def evaluation(method: str = "shapley") -> ap.Evaluation:
    falls = {"shares": [0.0, 0.5, 1.0], "scores": [0.0, -4.0, -6.0]}
    rises = {"shares": [0.0, 0.5, 1.0], "scores": [-6.0, -1.0, 0.0]}
    return ap.Evaluation(
        measurements={"deletion": ap.Measurement(2.5, extras=falls), "insertion": ap.Measurement(4.0, extras=rises)},
        higher_is_better={"deletion": False, "insertion": True},
        options={"deletion": {}, "insertion": {}},
        method=method,
        estimand="Shapley value",
        unit="nats",
        n_features=2,
        target=" هرم and <i>golf</i>",
        evaluations=5,
    )


def compared(number: int = 3, result: ap.Attribution | None = None) -> ap.ResultComparison:
    """Variations of one result: every third has magnitudes in a unit of its own."""
    one, draw = result or sample_results()["sampled"], np.random.default_rng(0)
    found = []
    for i in range(number):
        values, name = one.values + i * draw.normal(size=len(one.values)), f"a_method_of_long_name_{i}"
        made = {"values": values, "provenance": replace(one.provenance, method=name)}
        if i % 3 == 2:
            own = replace(one.provenance, method=name, unit="weight")
            made |= {"values": np.abs(values), "signed": False, "provenance": own, "std_error": None}
        found.append(replace(one, **made))
    return ap.compare(found)


def drawn(kind: str, **options: object) -> Figure:
    if kind == "comparison":
        return compared().plot(**options)
    return evaluation().plot(**options) if kind == "curves" else sample_results()["sampled"].plot(kind, **options)


KINDS = ("heatmap", "bar", "matrix", "network", "tree", "curves", "comparison")
every_kind = pytest.mark.parametrize("kind", KINDS)


def pdf_of(figure: Figure) -> bytes:
    content = io.BytesIO()
    with matplotlib.rc_context({"pdf.compression": 0}):
        figure.savefig(content, format="pdf")
    return content.getvalue()


@every_kind
def test_pdf_files_have_truetype_fonts(kind: str) -> None:
    settings = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = pdf_of(drawn(kind))
    assert b"/Type3" not in content and b"/FontFile2" in content
    assert dict(matplotlib.rcParams) == settings


def test_other_vector_files_and_pickled_figures_have_them_too(tmp_path: Path) -> None:
    figure = drawn("bar")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert b"/Type3" not in pdf_of(pickle.loads(pickle.dumps(figure)))
        figure.savefig(tmp_path / "x.eps")
        figure.savefig(tmp_path / "x.svg")
    assert b"/FontType 42" in (tmp_path / "x.eps").read_bytes()


def test_emoji_are_not_lost_in_postscript() -> None:
    """Matplotlib writes glyphs of characters beyond U+FFFF that its files lack; they are drawn as shapes."""
    figure, content = of_words("😀 ok", [" x"]).plot("bar"), io.StringIO()
    assert any("😀" in text for text in texts_of(figure))
    figure.savefig(content, format="eps")
    assert "1F600" not in content.getvalue().upper() and "/o glyphshow" in content.getvalue()


def test_pages_of_pdf_keep_the_settings_of_the_user(tmp_path: Path) -> None:
    """They embed fonts when they are closed; text written for other fonts would be garbled."""
    with matplotlib.rc_context({"pdf.compression": 0}), PdfPages(tmp_path / "x.pdf") as pages:
        pages.savefig(drawn("bar"))
    content = (tmp_path / "x.pdf").read_bytes()
    assert b"/Type3" in content and b"/FontFile2" not in content


@pytest.mark.parametrize("kind", ["heatmap", "bar"])
@pytest.mark.parametrize("case", ["arabic", "nasty", "groups"])
def test_no_mark_is_printed(case: str, kind: str) -> None:
    shown = "".join(texts_of(CASES[case]().plot(kind)))
    assert not set(MARKS) & set(shown)
    assert not set(MARKS) & set("".join(texts_of(evaluation().plot())))
    assert runs("Target: “\u2068هرم\u2069”") == ["Target: “", "هرم", "”"]
    assert runs("Target: “\u2068golf\u2069”") == ["Target: “golf”"]


POSTSCRIPT_FONT = """
import io, json, sys
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
import matplotlib
from matplotlib import font_manager
from test_figures import pdf_of
from test_visualizers import of_words, texts_of
pen = T2CharStringPen(500, None)
pen.moveTo((0, 0)), pen.lineTo((0, 500)), pen.lineTo((500, 500)), pen.closePath()
shape = pen.getCharString()
builder = FontBuilder(1000, isTTF=False)
builder.setupGlyphOrder([".notdef", "own"])
builder.setupCharacterMap({0xE123: "own"})
builder.setupCFF("Own", {}, {".notdef": shape, "own": shape}, {})
builder.setupHorizontalMetrics({".notdef": (500, 0), "own": (500, 0)})
builder.setupHorizontalHeader(ascent=800, descent=-200)
builder.setupNameTable({"familyName": "Noto Sans CJK SC", "styleName": "Regular"})
builder.setupOS2()
builder.setupPost()
builder.save(sys.argv[-1])
font_manager.fontManager.addfont(sys.argv[-1])
figure = of_words("\\ue123 ok", [" x", " y"]).plot("bar")
assert any("\\ue123" in text for text in texts_of(figure))
content = pdf_of(figure)
before = figure.texts[0].get_path_effects()
print(json.dumps([content.count(b"/FontFile"), b"OTTO" in content, b"/Type3" in content, before]))
"""


def test_fonts_that_cannot_be_embedded_are_drawn_as_shapes(forks: Forks, tmp_path: Path) -> None:
    """Matplotlib would embed a font with PostScript outlines as a TrueType font, which readers reject."""
    code = POSTSCRIPT_FONT.replace("sys.argv[-1]", repr(str(tmp_path / "own.otf")))
    done = forks.run(code)
    assert done.returncode == 0, done.stderr
    fonts, embedded, type3, effects = json.loads(done.stdout)
    assert fonts >= 1 and not embedded and not type3 and effects == []


@every_kind
def test_the_title_is_the_users(kind: str) -> None:
    usual = texts_of(drawn(kind))
    assert any(text.startswith("Target: ") for text in usual) or kind == "curves"
    for none in (None, ""):
        shown = [text for text in texts_of(drawn(kind, title=none)) if text]
        assert not any(text.startswith(("Target", "Above 0", "Shapley value (s", "smollm2", "tiny")) for text in shown)
    own = texts_of(drawn(kind, title="What $x$ does\n日 the next line"))
    assert "What $x$ does" in own and any(text.endswith("the next line") for text in own)
    assert not any(text.startswith("Target") for text in own)


@every_kind
@pytest.mark.parametrize("size", [(6.5, 4.5), (3.6, None), (12.0, 8.0)])
def test_figures_have_the_size_that_was_asked_for(kind: str, size: tuple[float, float | None]) -> None:
    figure = drawn(kind, size=size, dpi=200, labels="short")
    width, height = figure.get_size_inches()
    assert width == pytest.approx(size[0]) and (size[1] is None or height == pytest.approx(size[1]))
    assert figure.dpi == 200
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert matplotlib.image.imread(io.BytesIO(png.getvalue())).shape[1] == round(200 * size[0])
    smallest = min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text())
    assert smallest >= 4


@every_kind
def test_looks_that_cannot_be_are_refused(kind: str) -> None:
    with pytest.raises(
        ap.InputError, match=r"size=\(1, 0.6\) is too small .* wide and .* high.*or leave out the title"
    ):
        drawn(kind, size=(1, 0.6))
    with pytest.raises(ap.InputError, match=r"at least [\d.]+ high.*, or show less of it\.$"):
        drawn(kind, size=(8, 0.6), title=None)
    for bad in (3, "33", (3,), (3, 4, 5), (0.1, 3), (1e4, 3), (True, 3), (float("nan"), 3)):
        with pytest.raises(ap.InputError, match="size="):
            drawn(kind, size=bad)
    for name, bad in (("dpi", 0), ("dpi", "300"), ("labels", "long"), ("title", 3)):
        with pytest.raises(ap.InputError, match=f"{name}="):
            drawn(kind, **{name: bad})
    with pytest.raises(ap.InputError, match="more than 65,536 pixels"):
        drawn(kind, size=(99, 4), dpi=700)


def test_labels_are_names_and_texts_or_names_alone() -> None:
    def labels(**options: object) -> list[str]:
        return [label.get_text() for label in grouped().plot("bar", **options).axes[0].get_yticklabels()]

    assert labels() == ["name + pronoun: Dave … His", "city: Palm Coast", "job: lawyer"]
    assert labels(labels="short") == ["name + pronoun", "city", "job"]
    assert any("area" in text for text in texts_of(drawn("curves")) if "first" in text)
    assert not any("area" in text for text in texts_of(drawn("curves", labels="short")) if "first" in text)
    boxes = texts_of(drawn("network", labels="short"))
    assert {"Dave", "golf"} <= set(boxes)


@pytest.mark.parametrize("width", [12, 20, 30])
def test_labels_end_with_whole_words(width: int) -> None:
    for text in ("Several members raised concerns about the cost.", "The quick brown fox jumps #2", "well-known names"):
        for short in (ellipsis(text, width), cut(text, width)):
            if "…" not in short:
                continue
            again = ellipsis(short, width - 4)
            assert again.count("…") == 1 and ".…" not in again
            head, tail = short.split("…")
            assert not (text[len(head)].isalnum() and head[-1].isalnum()), short
            assert not tail or not (text[-len(tail) - 1].isalnum() and tail[0].isalnum()), short


def test_one_target_token_has_no_panel_of_its_own() -> None:
    one, two = of_words("a b c", [" x"]), of_words("a b c", [" x", " y"])
    assert len(one.plot().axes) == 1 and len(two.plot().axes) == 3
    assert len(replace(two, target_tokens=(), token_values=np.zeros((0, 3))).plot().axes) == 1
    assert ["apn-tokens" in each.plot("html").rpartition("</style>")[2] for each in (one, two)] == [False, True]
    # A target function may give a token another value than the whole target.
    assert len(replace(one, values=one.values + 1).plot().axes) == 3


def test_the_command_line_has_the_same_options(tmp_path: Path) -> None:
    source, plot = str(grouped().save(tmp_path / "x.json")), tmp_path / "x.png"
    options = ["title=null", "size=[3.5, 2.5]", "dpi=100", "labels=short"]
    words = [word for option in options for word in ("--view-option", option)]
    assert main(["show", source, "--view", "bar", "--plot", str(plot), *words]) == 0
    assert matplotlib.image.imread(plot).shape[:2] == (250, 350)
    assert main(["show", source, "--plot", str(tmp_path / "x.eps")]) == 0
    assert (tmp_path / "x.eps").read_bytes().startswith(b"%!PS-Adobe")


def test_a_short_tree_keeps_its_warnings() -> None:
    full, short = (texts_of(drawn("tree", labels=labels, size=(6.5, None))) for labels in ("full", "short"))
    tags = [text for text in full if "not expanded" in text]
    assert tags and tags == [text for text in short if "not expanded" in text]


def columns_of(figure: Figure, number: int) -> list[list[float]]:
    """Lengths of the bars in each column, in parts of the column's scale."""
    found = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    bars = [lengths for lengths, axes in zip(found, figure.axes, strict=True) if axes.containers]
    assert len(bars) == number
    return bars


def test_columns_of_a_comparison_have_a_scale_that_is_stated() -> None:
    found = compared(4)
    own, shared = columns_of(found.plot(), 4), columns_of(found.plot(scale="unit"), 4)
    limits = np.abs(found.values).max(axis=1)
    np.testing.assert_allclose(own, found.values / limits[:, None])
    nats = max(limit for i, limit in enumerate(limits) if i != 2)
    np.testing.assert_allclose(shared, found.values / np.array([nats, nats, limits[2], nats])[:, None])
    said = " ".join(texts_of(found.plot()))
    assert "Each column is divided by its own largest magnitude" in said
    assert "Units differ (nats, weight): compare the rankings" in said
    assert f"±{limits[0]:.2f}" in said and f"±{limits[2]:.2f}" not in said and f"{limits[2]:.2f}" in said
    assert "Columns of one unit are divided by the largest" in " ".join(texts_of(found.plot(scale="unit")))
    for bad in ({"scale": "all"}, {"k": 0}, {"max_features": 0}, {"colour": "red"}):
        with pytest.raises(ap.InputError, match=next(iter(bad))):
            found.plot(**bad)
    with pytest.raises(ap.ResultError, match="'heatmap' has no render_comparison.*: bar, "):
        found.plot("heatmap")
    with pytest.raises(ap.InputError, match="plots"):
        found.plot("plots")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", [1, 7])
def test_a_comparison_fits_its_page_whatever_the_names(case: str, number: int) -> None:
    result = CASES[case]()
    if np.isnan(result.values).any():
        pytest.skip("no comparison of unknown values")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = compared(number, result).plot()
        figure.savefig(io.BytesIO(), format="png")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_a_long_whisker_does_not_flatten_the_bars() -> None:
    sampled = compared(2).results
    one, other = (replace(each, std_error=np.full(len(each.values), 0.01)) for each in sampled)
    wide = replace(other, std_error=np.full(len(other.values), 100.0))
    usual, cut = (ap.compare(pair).plot() for pair in ([one, other], [one, wide]))
    reach = [max(axes.get_xlim()[1] for axes in figure.axes if axes.containers) for figure in (usual, cut)]
    assert reach[0] <= reach[1] < 1.5
    assert ["without an end are longer" in " ".join(texts_of(figure)) for figure in (usual, cut)] == [False, True]


def test_many_results_and_features_can_be_read() -> None:
    found = compared(15, of_words(" ".join(f"word{i}" for i in range(60)), [" x"]))
    figure = found.plot(k=5)
    width, height = figure.get_size_inches()
    assert width < 20 and height < 20
    said = texts_of(figure)
    assert any("Showing the 40 of 60 features" in text for text in said)
    assert "Top 5 in common" in said and "15 a_method_of_long_name_14" in said
    shown = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(text.get_fontsize() for text in shown) >= 7
    columns = [axes for axes in figure.axes if axes.containers]
    boxes = [axes.get_position() for axes in columns]
    assert len(columns) == 15 and min(box.width for box in boxes) * width > 0.3
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
