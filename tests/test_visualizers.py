"""The visualizers, on results made by hand: no model, no torch."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console

import apportion as ap
from apportion.testing import sample_results
from apportion_plugins.visualizers import drawing
from apportion_plugins.visualizers.canvas import PlotFigure
from apportion_plugins.visualizers.html_style import colour_class
from apportion_plugins.visualizers.labels import ellipsis, one_line, prose, token_labels
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import DARK, LIGHT, MIDDLE, strengths, text_on
from forks import Forks

PROVENANCE = ap.Provenance(
    "permutation",
    method_reason="2^60 evaluations do not fit",
    evaluations=2048,
    forwarded_tokens=181234,
    seconds=73.1,
    model="smollm2",
    backend="torch",
    device="cpu",
    dtype="float32",
    notes=("The target was generated.",),
)
NASTY = "<script>alert('1')</script> \"q\" & $5 $x_1$ \x1b[31mred \u202eevil [bold]x[/bold] \ud83d ❤️ 👩‍👩‍👧 🇫🇷"


def of_words(text: str, tokens: list[str], scale: float = 1.0, errors: float | None = 0.1) -> ap.Attribution:
    """Every word a feature, named with its number."""
    words = re.findall(r"\S+", text)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(tokens), len(words))) * scale
    segments = [s for i, word in enumerate(words) for s in (ap.Segment(" "), ap.Segment(word, i))]
    return ap.Attribution(
        features=tuple(ap.Feature(f"{word} #{i}", word) for i, word in enumerate(words)),
        target_tokens=tuple(tokens),
        values=values.sum(0),
        token_values=values,
        estimand="Shapley value",
        provenance=PROVENANCE,
        std_error=None if errors is None else np.full(len(words), errors * scale),
        token_std_error=None if errors is None else np.full(values.shape, errors * scale),
        base_value=-40.0,
        full_value=-40.0 + float(values.sum()) + 0.125,
        segments=tuple(segments),
        target_text="".join(tokens),
    )


def grouped() -> ap.Attribution:
    result = of_words("Dave Coast lawyer", [" playing", " golf", "."], errors=None)
    features = (
        ap.Feature("name + pronoun", "Dave … His", ("name", "pronoun"), "Sarah … Her"),
        ap.Feature("city", "Palm Coast", (), "Seattle"),
        ap.Feature("job", "lawyer"),
    )
    parts = [
        ("Dave", 0),
        (" lives in ", None),
        ("Palm Coast", 1),
        (".\nA ", None),
        ("lawyer", 2),
        ("\n", None),
        ("His", 0),
    ]
    values = np.array([0.9, -0.5, 0.0])
    segments = tuple(ap.Segment(text, feature) for text, feature in parts)
    return replace(result, features=features, segments=segments, values=values)


def partly_unknown() -> ap.Attribution:
    result = of_words("alpha beta gamma", [" x", " y"])
    values = result.token_values.copy()
    values[1, 2] = np.nan
    return replace(result, std_error=np.array([0.1, np.nan, 0.2]), token_values=values)


def zeros() -> ap.Attribution:
    result = of_words("a b", [" x", " y"], scale=0.0, errors=None)
    return replace(result, full_value=-40.0)


LONG = "word " * 15 + "a-rather-long-word-with-many-hyphens-in-it-as-in-addresses and others at the end"
CASES = {
    "groups": grouped,
    "long": lambda: of_words(LONG, [f" token{i}" for i in range(9)]),
    "chinese": lambda: of_words("北 京 是 中 国", list("春秋短。"), errors=None),
    "arabic": lambda: of_words("القاهرة هي عاصمة 22 مصر", [" الأ", "هرامات", "."]),
    "nasty": lambda: of_words(NASTY, ["🙂₁", "🙂₂", "\n", "  ", ""]),
    "zeros": zeros,
    "one": lambda: of_words("hello", [" world"], errors=None),
    "huge": lambda: of_words("a b c", [" x", " y"], scale=3e12),
    "tiny": lambda: of_words("a b c", [" x", " y"], scale=3e-12),
    "partly unknown": partly_unknown,
    "unknown": lambda: replace(partly_unknown(), std_error=np.full(3, np.nan), token_std_error=None),
    "bare": lambda: replace(grouped(), segments=(), base_value=None, full_value=None, target_text=""),
    "no tokens": lambda: replace(grouped(), target_tokens=(), token_values=np.zeros((0, 3)), target_text="free"),
}


@pytest.fixture(params=CASES)
def result(request: pytest.FixtureRequest) -> ap.Attribution:
    return CASES[request.param]()


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def printed(result: ap.Attribution, width: int = 80, encoding: str = "utf-8", **console: object) -> str:
    stream = io.TextIOWrapper(
        io.BytesIO(), encoding=encoding, errors="surrogatepass" if encoding != "ascii" else "strict"
    )
    Console(file=stream, width=width, **console).print(result.plot("terminal"))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("kind", ["heatmap", "bar"])
def test_figures_draw_every_case(result: ap.Attribution, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = result.plot(kind)
        figure.savefig(io.BytesIO(), format="png")
    # matplotlib logs fonts that it does not find.
    assert not [record for record in caplog.records if record.name == "matplotlib.font_manager"]
    assert dict(matplotlib.rcParams) == settings
    assert any("nats" in text for text in texts_of(figure))
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_prints_every_case(result: ap.Attribution, width: int) -> None:
    lines = printed(result, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    page = "\n".join(lines)
    assert "Shapley value" in page and "2,048 evaluations, 181,234 tokens, 73.1 s" in page
    assert "torch on cpu, float32" in page and "\x1b" not in page
    assert printed(result, width, encoding="ascii").isascii()


class Balance(HTMLParser):
    """Checks that every tag is closed, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("page", [False, True])
def test_html_is_well_formed_and_self_contained(result: ap.Attribution, page: bool) -> None:
    html = result.plot("html")
    html = str(html) if page else html.fragment
    parser = Balance()
    parser.feed(html)
    assert not parser.open
    tags = {tag for tag, _ in parser.tags}
    assert not tags & {"script", "link", "img", "iframe"} and {"details", "table"} <= tags
    assert not re.search(r"src=|url\(|@import|https?:", html)
    classes = [attrs["class"] for _, attrs in parser.tags if attrs.get("class")]
    assert all(name.startswith("apn-") for names in classes for name in names.split())
    html.encode()  # half characters would not


def test_the_legend_of_html_stays_on_one_line_before_its_meaning() -> None:
    html = sample_results()["exact"].plot("html").fragment
    limit = re.search(r'<span class="apn-whole">−(\S+) <span class="apn-key"></span> \+(\S+)</span> nats</p>', html)
    assert limit is not None and limit[1] == limit[2]
    assert "Above 0 raises the target&#x27;s score (nats), below 0 lowers it." in html


def test_html_escapes_and_isolates_directions() -> None:
    html = CASES["nasty"]().plot("html")
    assert "&lt;script&gt;" in html and "<U+202E>".replace("<", "&lt;").replace(">", "&gt;") in html
    assert "\u202e" not in html and "\x1b" not in html
    assert '<div class="apn-prompt" dir="auto" lang="">' in html and "<bdi>القاهرة #0</bdi>" in CASES["arabic"]().plot(
        "html"
    )


def test_members_of_a_group_share_its_colour_everywhere() -> None:
    html = grouped().plot("html")
    assert re.findall(r'class="(apn-p20)" title="name \+ pronoun: \+0.900 nats">(Dave|His)<', html) == [
        ("apn-p20", "Dave"),
        ("apn-p20", "His"),
    ]
    assert "replaced by" in html and "Sarah … Her" in html
    coloured = printed(grouped(), force_terminal=True, color_system="truecolor", no_color=False)
    assert len(set(re.findall(r"\x1b\[([^m]*)m(?:Dave|His)\x1b", coloured))) == 1
    assert "Dave[+] lives in Palm Coast[−]" in printed(grouped())


def test_unknown_and_bad_options_are_refused() -> None:
    result = grouped()
    with pytest.raises(ap.InputError, match=r"no option 'nonsense'.*max_features"):
        result.plot("bar", nonsense=1)
    for kind in ("heatmap", "bar", "terminal", "html"):
        for bad in (0, -1, 2.5, True, "4"):
            with pytest.raises(ap.InputError, match="max_features="):
                result.plot(kind, max_features=bad)
    with pytest.raises(ap.InputError, match="max_features=1001 must .* at most 1000"):
        result.plot("bar", max_features=1001)


def test_what_is_left_out_is_said() -> None:
    result = of_words("a b c d", [" x", " y", " z"])
    result = replace(result, values=np.array([0.5, -3.0, 0.25, 2.0]))
    note = "Showing the 2 of 4 features with the largest |attribution|; the 2 omitted have at most 0.5 each"
    for kind in ("heatmap", "bar"):
        shown = texts_of(result.plot(kind, max_features=2))
        assert note in " ".join(shown) and "b #1" in shown and "a #0" not in shown
    assert "the 1 omitted" in " ".join(texts_of(result.plot("heatmap", max_tokens=2)))
    assert note in result.plot("html", max_features=2)
    assert "12 cells exceed max_cells=11" in result.plot("html", max_cells=11)
    page = " ".join(str(line) for line in result.plot("terminal", max_features=2).notes)
    assert note in page


def test_sorting_puts_the_largest_first() -> None:
    result = replace(of_words("a b c", [" x"]), values=np.array([0.5, -3.0, 1.0]))
    assert row_labels(result.plot("bar")) == ["a #0", "b #1", "c #2"]
    assert row_labels(result.plot("bar", sort=True)) == ["b #1", "c #2", "a #0"]


def row_labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_unknown_errors_are_marked_and_known_ones_drawn() -> None:
    figure = partly_unknown().plot("bar")
    (whiskers,) = figure.axes[0].collections
    (left, _), (right, _) = whiskers.get_segments()[0]
    assert right - left == pytest.approx(2 * 1.96 * 0.1) and len(whiskers.get_segments()) == 2
    texts = texts_of(figure)
    assert sum("± ?" in text for text in texts) == 1
    assert "The standard errors of 1 of 3 features are unknown." in texts
    assert "n/a" in texts_of(partly_unknown().plot("heatmap"))
    assert not grouped().plot("bar").axes[0].collections


@pytest.mark.parametrize("case", ["groups", "arabic", "60 words × 25 tokens"])
def test_labels_of_the_heatmap_do_not_overlap(case: str) -> None:
    large = of_words("word " * 40 + LONG, [f" token{i}" for i in range(25)])
    figure = CASES.get(case, lambda: large)().plot("heatmap")
    bars, cells, _ = figure.axes
    rows = [label.get_window_extent() for label in bars.get_yticklabels()]
    assert all(a.y0 >= b.y1 - 1 for a, b in pairwise(rows))
    assert min(box.x0 for box in rows) >= 0
    labels = cells.get_xticklabels()
    size = max(label.get_fontsize() for label in labels) * figure.dpi / 72
    left = [cells.transData.transform((i, 0))[0] for i in range(len(labels))]
    gap = min(np.diff(left))
    boxes = [label.get_window_extent() for label in labels]
    if labels[0].get_rotation():
        assert gap * np.sin(np.radians(labels[0].get_rotation())) >= size * 0.9
    else:
        assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    numbers = [text.get_window_extent().width for text in cells.texts]
    assert max(numbers) <= gap


def test_figures_show_themselves_in_notebooks_without_pyplot() -> None:
    figure = grouped().plot()
    assert isinstance(figure, PlotFigure)
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG") and size["width"] == int(figure.bbox.width)


FEW_FONTS = """
import io, json, warnings
from matplotlib import font_manager
from test_visualizers import of_words, texts_of
manager = font_manager.fontManager
manager.ttflist = [font for font in manager.ttflist if font.name.startswith("DejaVu")]
warnings.simplefilter("error")
figure = of_words("北京 是 ok 👩‍👩‍👧 🇫🇷", [" 🙂", "👍🏽"]).plot("heatmap")
figure.savefig(io.BytesIO(), format="png")
print(json.dumps(texts_of(figure)))
"""


def test_missing_fonts_give_one_note_instead_of_warnings(forks: Forks) -> None:
    """In a process of its own: what the fonts have is looked up once."""
    done = forks.run(FEW_FONTS)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert {"▯▯ #0", "U+662F #1", "ok #2", "[woman + woman + girl] #3", "[flag FR] #4"} <= set(texts)
    assert {"[slightly…face]", "[thumbs up sign]"} <= set(texts)
    notes = " ".join(texts)
    assert "3 Chinese, Japanese or Korean characters" in notes and "emoji characters, shown by name" in notes


def test_results_are_drawn_without_torch(tmp_path: Path) -> None:
    path = grouped().save(tmp_path / "result.json")
    code = """
import sys
import apportion as ap
result = ap.Attribution.load(sys.argv[1])
for kind in ("heatmap", "bar", "terminal", "html"):
    result.plot(kind)
result.show()
assert "torch" not in sys.modules and "transformers" not in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "one-of-nobody", "svg"])
def test_figures_need_no_backend_of_pyplot(tmp_path: Path, backend: str) -> None:
    """A process that a notebook starts inherits MPLBACKEND, but may lack the notebook's packages."""
    path = grouped().save(tmp_path / "result.json")
    code = """
import os, sys
from pathlib import Path
import apportion as ap
from apportion.cli import main
before = os.environ["MPLBACKEND"]
source = sys.argv[1]
for suffix in (".png", ".svg", ".pdf"):
    assert main(["show", source, "--plot", str(Path(source).with_suffix(suffix))]) == 0
result = ap.Attribution.load(source)
for kind in ("heatmap", "bar"):
    result.plot(kind).savefig(Path(source).with_suffix(".png"))
assert os.environ["MPLBACKEND"] == before
if before == "svg":
    import matplotlib
    assert matplotlib.rcParams["backend"] == before
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": backend},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")


def test_only_one_module_imports_matplotlib() -> None:
    """The one that copes with any MPLBACKEND."""
    folder = Path(drawing.__file__).parent
    for path in folder.glob("*.py"):
        imports = re.search(r"^\s*(from|import) matplotlib", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert (imports is not None) == (path.name == "drawing.py"), path.name


def test_zero_is_neutral_and_signs_are_symmetric() -> None:
    for ramp in (LIGHT, DARK, MIDDLE):
        red, green, blue = ramp.colour(0.0)
        assert max(red, green, blue) - min(red, green, blue) <= 1
        for strength in np.linspace(0.05, 1, 20):
            raises, lowers = ramp.colour(strength), ramp.colour(-strength)
            assert raises[0] > raises[2] and lowers[0] < lowers[2]
            contrasts = [contrast(colour, text_on(colour)) for colour in (raises, lowers)]
            assert min(contrasts) >= 4.5
            assert luminance(raises) == pytest.approx(luminance(lowers), abs=0.06)
    assert LIGHT.colour(3.0) == LIGHT.colour(1.0)
    assert colour_class(0.0) == "apn-z" and colour_class(float("nan")) == "apn-x"
    assert (colour_class(0.05), colour_class(-1.0)) == ("apn-p1", "apn-n20")
    assert strengths(np.array([0.0, 0.0])).tolist() == [0.0, 0.0]
    assert strengths(np.array([2.0, -4.0, np.nan]))[:2].tolist() == [0.5, -1.0]


def luminance(colour: tuple[int, int, int]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_magnitudes_have_one_hue_and_no_signs() -> None:
    result = sample_results()["magnitudes"]
    plain = replace(result, extras={})
    heatmap = plain.plot("heatmap")
    (mesh,) = [part for axes in heatmap.axes for part in axes.collections if axes.get_xticklabels()][:1]
    assert mesh.norm.vmin == 0.0
    for figure in (heatmap, plain.plot("bar"), result.plot("tree")):
        shown = texts_of(figure)
        assert not any(re.fullmatch(r"[+−][\d.]+", text) for text in shown), shown
        assert any("do not say whether a feature raises or lowers" in text for text in " ".join(shown).split("\n"))
    body = plain.plot("html").fragment.rpartition("</style>")[2]
    classes = set(re.findall(r"apn-[pnm]\d+", body))
    assert {name[:5] for name in classes} == {"apn-m"} and "apn-m20" in classes
    assert not re.search(r"[+−]\d", body.partition("Score:")[0])
    assert "do not say whether" in body
    lines = printed(plain, 100)
    assert "do not say whether a feature raises or lowers" in " ".join(lines.split())
    assert not re.search(r"[+−]\d", lines.partition("without features")[0].partition("score")[0])
    purple = LIGHT.of_magnitudes()
    assert purple.colour(1.0) not in (LIGHT.colour(1.0), LIGHT.colour(-1.0))
    assert purple.colour(0.0) == LIGHT.colour(0.0)


def test_labels_show_what_cannot_be_seen() -> None:
    assert one_line(" golf") == "golf" and one_line("  ") == "␣␣" and one_line("") == "(empty)"
    assert one_line("a\r\nb\t") == "a⏎b⇥" and one_line("\x1b[0m\x00") == "<U+001B>[0m<U+0000>"
    assert one_line("\ud83d") == "<U+D83D>" and one_line("👩‍👩‍👧") == "👩‍👩‍👧"
    assert prose("a\r\n\tb\x07") == "a\n\tb<U+0007>"
    assert token_labels(["Ġplaying", "Ġgolf", "."]) == ["playing", "golf", "."]
    assert token_labels(["Ġorġ", " kiel"]) == ["Ġorġ", "kiel"]  # a name in Maltese
    for text in ("a rather long sentence #2", "北京是中国的首都人口超过", "👩‍👩‍👧" * 9):
        short = ellipsis(text, 12)
        assert cell_len(short) <= 12 and "…" in short and text.startswith(short.split("…")[0])
    assert ellipsis("a rather long sentence #2", 12).endswith("#2") and ellipsis("short", 5) == "short"


def test_numbers_share_a_precision() -> None:
    numbers = Numbers([12.345, -0.001, float("nan")])
    assert [numbers.signed(v) for v in (12.345, -0.001, 0.0, float("nan"))] == ["+12.3", "−0.0", "0", "n/a"]
    beside = Numbers([18.1, -0.045], decimals=2)
    assert [beside.signed(v) for v in (18.1, -0.045)] == ["+18.10", "−0.04"]
    assert Numbers([234567.0], decimals=2).signed(234567.0) == "+2.35e5"
    assert [Numbers([3.234e7, 6.296], digits=4).plain(v) for v in (3.234e7, 6.296)] == ["3.234e7", "6.296"]
    assert numbers.plain(2.0) == "2.0" and numbers.plain(float("nan")) == "?"
    assert Numbers([1.5e7]).signed(-1.5e7) == "−1.50e7" and Numbers([]).signed(0.0) == "0"
    assert Numbers([3e-12]).signed(3e-12) == "+3.00e-12".replace("e-", "e−")
