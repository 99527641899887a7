"""Views of results whose prompt has pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from PIL import Image
from rich.console import Console

import apportion as ap
from apportion.hooks.object_check import object_faults
from apportion.protocols.row import Media
from apportion.testing import sample_results
from apportion.testing.shapes import Scene, Thing, ask, draw
from apportion.testing.visualizer import as_text, check_view
from apportion_plugins.visualizers.image import Image as ImageView
from apportion_plugins.visualizers.outlines import inner_point, outlines, svg_path
from apportion_plugins.visualizers.palette import LIGHT, hex_of
from test_visualizers import texts_of

SIZE = 64
SCENE = Scene((Thing("yellow", "triangle", 0, 2), Thing("blue", "circle", 1, 2)))


def pixels(seed: int = 0) -> np.ndarray:
    return draw(SCENE, np.random.default_rng(seed))


def disc(row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.hypot(rows - row, columns - column) < radius


MASKS = {
    "left part": np.broadcast_to(np.arange(SIZE) < 40, (SIZE, SIZE)).copy(),
    "disc": disc(30, 40, 20),
    "small disc": disc(30, 40, 8),
    "ring": disc(45, 20, 16) & ~disc(45, 20, 9),
}


@pytest.fixture(scope="module")
def explainer() -> Iterator[ap.Explainer]:
    with ap.Explainer("shapes", backend="torch", progress=False) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def question() -> str:
    return ask(SCENE, np.random.default_rng(1), "colour").text


@pytest.fixture(scope="module")
def grid(explainer: ap.Explainer, question: str) -> ap.Attribution:
    prompt = ap.ImageText(pixels(), question)
    return explainer.attribute(prompt, "a yellow triangle", method="kernel_shap", budget=120)


@pytest.fixture(scope="module")
def overlapping(explainer: ap.Explainer, question: str) -> ap.Attribution:
    prompt = ap.ImageText(pixels(), question, segments=MASKS)
    return explainer.attribute(prompt, "yellow", method="kernel_shap", budget=120)


@pytest.fixture(scope="module")
def two(explainer: ap.Explainer, question: str, tmp_path_factory: pytest.TempPathFactory) -> ap.Attribution:
    path = tmp_path_factory.mktemp("pictures") / "other.png"
    Image.fromarray(pixels(1)).save(path)
    prompt = ap.ImageText([pixels(), path], question, segments="grid:2x2")
    return explainer.attribute(prompt, "yellow", method="kernel_shap", budget=120)


@pytest.fixture(scope="module")
def paired(explainer: ap.Explainer) -> ap.Attribution:
    prompt = ap.ImageText(pixels(), "what colour", segments="grid:2x2")
    return explainer.attribute(prompt, "yellow", method="interactions", budget=None)


@pytest.fixture(scope="module")
def saved(grid: ap.Attribution, tmp_path_factory: pytest.TempPathFactory) -> ap.Attribution:
    """A result without pixels."""
    return ap.Attribution.load(grid.save(tmp_path_factory.mktemp("results") / "x.json"))


def pictures_of(figure: Figure) -> list[list]:
    """The images of each picture: its pixels, and the scores over them."""
    found = [axes.get_images() for axes in figure.axes]
    return [images for images in found if images]


def scores_of(figure: Figure, picture: int = 0) -> np.ndarray:
    """The drawn scores of a picture; NaN where there is no colour."""
    return pictures_of(figure)[picture][-1].get_array().filled(np.nan)


def expected(result: ap.Attribution, values: np.ndarray, picture: int = 0) -> np.ndarray:
    regions = result.pictures[picture].regions
    found = np.sum([mask * values[i] for i, mask in regions.items()], axis=0)
    return np.where(np.any(list(regions.values()), axis=0), found, np.nan)


def drawn_text(figure: Figure) -> str:
    return " ".join(texts_of(figure))


def test_a_pixel_has_the_sum_of_the_scores_of_its_regions(overlapping: ap.Attribution, grid: ap.Attribution) -> None:
    for result in (overlapping, grid):
        figure = result.plot("image")
        np.testing.assert_allclose(scores_of(figure), expected(result, result.values), atol=1e-12)
        ((ground, scores),) = pictures_of(figure)
        limit = max(np.nanmax(np.abs(expected(result, result.values))), np.abs(result.values[len(MASKS) :]).max())
        if result is overlapping:
            assert scores.norm.vmax == -scores.norm.vmin == pytest.approx(limit)
        assert np.asarray(ground.get_array()).shape == (SIZE, SIZE, 3)
        assert ground.get_interpolation() == scores.get_interpolation() == "nearest"
    assert np.isnan(scores_of(overlapping.plot("image"))).any()
    assert "Where regions overlap, the sum" in drawn_text(overlapping.plot("image"))
    assert "overlap" not in drawn_text(grid.plot("image"))


def test_words_share_the_scale_of_the_picture(grid: ap.Attribution) -> None:
    figure = grid.plot("image")
    limit = np.abs(grid.values).max()
    ((_, scores),) = pictures_of(figure)
    assert scores.norm.vmax == pytest.approx(limit)
    boxes = [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    words = list(range(16, len(grid.features)))
    wanted = [hex_of(LIGHT.colour(float(grid.values[i] / limit))) for i in words]
    assert [to_hex(box.get_facecolor()) for box in boxes] == wanted
    assert {grid.features[i].name for i in words} <= set(texts_of(figure))
    assert "circle" not in texts_of(grid.plot("image", words=False))
    assert "Shapley value (nats)" in drawn_text(figure)


def test_parts_of_the_target_are_chosen_by_position_and_text(grid: ap.Attribution) -> None:
    tokens = grid.token_values
    for token, values in (
        (1, tokens[1]),
        ("yellow", tokens[1]),
        ((0, 2), tokens[:2].sum(0)),
        (range(1, 3), tokens[1:3].sum(0)),
    ):
        figure = grid.plot("image", token=token)
        np.testing.assert_allclose(scores_of(figure), expected(grid, values), atol=1e-12)
    assert "Token 1, “yellow”, of the target" in drawn_text(grid.plot("image", token=1))
    assert "Tokens 0 to 1, “" in drawn_text(grid.plot("image", token=(0, 2)))
    for wrong in (3, -1, True, (2, 1), (0, 9), "purple", 1.0, range(0, 3, 2)):
        with pytest.raises(ap.InputError, match=r"token=.*0 '.*2 '"):
            grid.plot("image", token=wrong)
    whole = replace(grid, token_values=np.full_like(tokens, np.nan))
    assert whole.plot("image") is not None
    with pytest.raises(ap.InputError, match="only the whole target was scored"):
        whole.plot("image", token=0)
    twice = replace(grid, target_tokens=("a", "b", "a"))
    with pytest.raises(ap.InputError, match="2 target tokens are 'a'.*0, 2"):
        twice.plot("image", token="a")


def test_signs_can_be_left_out(grid: ap.Attribution) -> None:
    found = expected(grid, grid.values)
    for sign, wanted in (
        ("positive", np.maximum(found, 0)),
        ("negative", np.minimum(found, 0)),
        ("absolute", np.abs(found)),
    ):
        figure = grid.plot("image", sign=sign)
        np.testing.assert_allclose(scores_of(figure), wanted, atol=1e-12)
        ((_, scores),) = pictures_of(figure)
        assert (scores.norm.vmin == 0) == (sign != "negative") and (scores.norm.vmax == 0) == (sign == "negative")
    assert "Magnitudes (nats)" in drawn_text(grid.plot("image", sign="absolute"))
    magnitudes = replace(grid, signed=False, values=np.abs(grid.values), token_values=np.abs(grid.token_values))
    ((_, scores),) = pictures_of(magnitudes.plot("image"))
    assert scores.norm.vmin == 0 and to_hex(scores.cmap(1.0)) == hex_of(LIGHT.of_magnitudes().colour(1.0))
    with pytest.raises(ap.InputError, match="sign='negative': .* magnitudes"):
        magnitudes.plot("image", sign="negative")


def test_overlays_show_the_picture_or_the_colours_alone(grid: ap.Attribution) -> None:
    ((ground, scores),) = pictures_of(grid.plot("image", overlay="heat_only"))
    assert np.ptp(np.asarray(ground.get_array())) == 0 and np.all(scores.get_alpha() == 1)
    ((_, scores),) = pictures_of(grid.plot("image", alpha=0.3))
    # A single number would be applied twice in vector files.
    assert scores.get_alpha().shape == (SIZE, SIZE) and np.all(scores.get_alpha() == 0.3)
    figure = grid.plot("image", overlay="masked")
    ((masked,),) = pictures_of(figure)
    bright = np.clip(expected(grid, grid.values) / grid.values[:16].max(), 0, 1)
    share = np.asarray(masked.get_array()) / np.maximum(pixels(), 1)
    np.testing.assert_allclose(share.mean(-1), 0.06 + 0.94 * bright, atol=0.02)
    assert "the darker the picture" in drawn_text(figure) and "circle" not in texts_of(figure)
    assert "circle" in texts_of(grid.plot("image", overlay="masked", words=True))


def test_only_the_strongest_regions_are_coloured(grid: ap.Attribution) -> None:
    figure = grid.plot("image", top=2)
    strongest = set(np.argsort(-np.abs(grid.values[:16]))[:2])
    for i, mask in grid.pictures[0].regions.items():
        assert np.isnan(scores_of(figure)[mask]).all() == (i not in strongest)
    assert "Showing the 2 of 16 regions with the largest |attribution|" in drawn_text(figure)


def borders_of(figure: Figure) -> list[float]:
    axes = next(axes for axes in figure.axes if axes.get_images())
    return [patch.get_linewidth() for patch in axes.patches if isinstance(patch, PathPatch)]


def test_borders_have_a_width(grid: ap.Attribution) -> None:
    assert not borders_of(grid.plot("image", borders=False)) and not borders_of(grid.plot("image", borders=0))
    assert borders_of(grid.plot("image", borders=4))[-1] == pytest.approx(3)  # points
    assert 0 < borders_of(grid.plot("image"))[-1] < 1


def test_regions_have_labels(grid: ap.Attribution, overlapping: ap.Attribution) -> None:
    assert set(MASKS) <= set(texts_of(overlapping.plot("image", labels="names")))
    assert set("0123") <= set(texts_of(overlapping.plot("image", labels="numbers")))
    assert f"{grid.values[2]:+.2f}" in texts_of(grid.plot("image", labels="scores"))
    assert "row 1, column 3" not in texts_of(grid.plot("image"))
    small = drawn_text(grid.plot("image", labels="names", size=(2.6, None)))
    assert "Labels without room are left out." in small


def test_several_pictures_stand_side_by_side(two: ap.Attribution) -> None:
    figure = two.plot("image")
    places = [axes.get_position() for axes in figure.axes if axes.get_images()]
    assert len(places) == 2 and places[0].x1 < places[1].x0 and places[0].y0 == pytest.approx(places[1].y0)
    for i in (0, 1):
        np.testing.assert_allclose(scores_of(figure, i), expected(two, two.values, i), atol=1e-12)
    assert {"picture 1", "picture 2: other.png"} <= set(texts_of(figure))
    for which in (1, "other.png"):
        figure = two.plot("image", picture=which)
        assert len(pictures_of(figure)) == 1
        np.testing.assert_allclose(scores_of(figure), expected(two, two.values, 1), atol=1e-12)
    for wrong in (2, -1, True, "cat.png", 0.5):
        with pytest.raises(ap.InputError, match=r"picture=.*0 'picture 1', 1 'other.png'"):
            two.plot("image", picture=wrong)
    same = replace(two, pictures=(two.pictures[1], two.pictures[1]))
    with pytest.raises(ap.InputError, match="2 pictures are called 'other.png'; give a position"):
        same.plot("image", picture="other.png")


def test_names_of_regions_stay_whole_in_tables(two: ap.Attribution) -> None:
    names = [name for name in two.feature_names if name.startswith("picture")]
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(two.plot("terminal"))
    assert len(names) == 8 and all(name in captured.get() for name in names)
    assert set(names) <= set(texts_of(two.plot("bar"))) and " of picture 1" not in two.plot("html")


def test_results_without_pixels_show_their_regions(saved: ap.Attribution, grid: ap.Attribution, tmp_path: Path) -> None:
    assert saved.pictures[0].pixels is None
    figure = saved.plot("image")
    np.testing.assert_allclose(scores_of(figure), expected(grid, grid.values), atol=1e-12)
    ((ground, scores),) = pictures_of(figure)
    assert np.ptp(np.asarray(ground.get_array())) == 0 and np.all(scores.get_alpha() == 1)
    note = "saved without the pixels of the picture: only regions are drawn. Give images="
    assert note in drawn_text(figure)
    path = tmp_path / "x.png"
    Image.fromarray(pixels()).save(path)
    before = np.asarray(pictures_of(grid.plot("image"))[0][0].get_array())
    for images in (path, str(path), [path], Image.open(path), pixels()):
        figure = saved.plot("image", images=images)
        np.testing.assert_array_equal(pictures_of(figure)[0][0].get_array(), before)
        assert note not in drawn_text(figure)


def test_images_must_be_those_of_the_result(saved: ap.Attribution, two: ap.Attribution) -> None:
    other = replace(saved, pictures=(replace(saved.pictures[0], digest=Media.of("image", pixels()).digest),))
    said = "This is not the picture that was attributed to"
    assert said in drawn_text(other.plot("image", images=255 - pixels()))
    assert said not in drawn_text(other.plot("image", images=pixels()))
    with pytest.raises(ap.InputError, match="48 × 64 pixels, but .* 64 × 64"):
        saved.plot("image", images=np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ap.InputError, match="2 pictures for the 1 picture"):
        saved.plot("image", images=[pixels(), pixels()])
    with pytest.raises(ap.InputError, match="1 picture for the 2 pictures"):
        two.plot("image", images=pixels())
    with pytest.raises(ap.InputError, match="There is no picture"):
        saved.plot("image", images="nowhere.png")
    with pytest.raises(ap.InputError, match="not a picture|A picture is"):
        saved.plot("image", images=3)


@pytest.mark.parametrize(
    ("option", "wrong", "message"),
    [
        ("overlay", "blended", "'heat', 'heat_only' or 'masked'"),
        ("sign", ["all"], "'all', 'positive', 'negative' or 'absolute'"),
        ("alpha", 1.5, "from 0"),
        ("alpha", True, "from 0"),
        ("borders", -1, "True, False, or a width"),
        ("labels", True, "'scores', 'names', 'numbers', or False"),
        ("labels", "score", "'scores', 'names', 'numbers', or False"),
        ("top", 0, "at least 1"),
        ("pairs", 0, "at least 1"),
        ("words", "no", "True or False"),
        ("size", (0.6, 0.6), "too small"),
    ],
)
def test_wrong_options_are_refused(grid: ap.Attribution, option: str, wrong: object, message: str) -> None:
    with pytest.raises(ap.InputError, match=rf"{option}=.*{message}"):
        grid.plot("image", **{option: wrong})


def test_prompts_without_pictures_are_refused() -> None:
    with pytest.raises(ap.InputError, match=r"has no pictures.*plot\('heatmap'\).*ap\.ImageText"):
        sample_results()["exact"].plot("image")
    assert not object_faults("visualizers", ImageView())


def lines_of(figure: Figure) -> list[PathPatch]:
    """The lines of interactions, without the light ones below them."""
    found = [patch for axes in figure.axes if not axes.get_images() for patch in axes.patches]
    return [patch for patch in found if isinstance(patch, PathPatch)][1::2]


def test_interactions_are_lines(paired: ap.Attribution, grid: ap.Attribution) -> None:
    matrix = np.asarray(paired.extras["interactions"])
    values = sorted((matrix[i, j] for i in range(4) for j in range(i + 1, 6)), key=abs)
    figure = paired.plot("image", pairs=5)
    lines = lines_of(figure)
    assert len(lines) == 5
    raises, lowers = (to_hex(hex_of(LIGHT.colour(strength))) for strength in (0.8, -0.8))
    for line, value in zip(lines, values[-5:], strict=True):
        red, _, blue = (int(to_hex(line.get_edgecolor())[i : i + 2], 16) for i in (1, 3, 5))
        assert (red > blue) == (value > 0) and raises != lowers
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths) and widths[-1] == pytest.approx(5)
    text = drawn_text(figure)
    assert "line: interaction (nats)" in text and "Showing the 5 of 14 pairs with a region" in text
    assert "Lines: " in text and "line: interaction" not in drawn_text(paired.plot("image"))
    assert len(lines_of(paired.plot("image", pairs=100, words=False))) == 6
    assert len(lines_of(paired.plot("image", pairs=3, token=0))) == 3
    with pytest.raises(ap.ResultError, match="has no interactions"):
        grid.plot("image", pairs=3)
    assert paired.plot("matrix") is not None


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, kind: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.found if kind in attrs.get("class", "").split()]


def test_html_has_an_element_for_each_region(
    grid: ap.Attribution, overlapping: ap.Attribution, two: ap.Attribution, saved: ap.Attribution
) -> None:
    for result in (grid, overlapping, two, saved):
        page = result.plot("html")
        check_view(page, html=True)
        regions = [i for picture in result.pictures for i in picture.regions]
        elements = Elements(page)
        reachable = elements.of("apn-region")
        assert len(reachable) == len(regions) and {one["tabindex"] for one in reachable} == {"0"}
        for i, one in zip(regions, reachable, strict=True):
            said = one["aria-label"]
            assert said.startswith(f"{result.features[i].name}: ") and " nats" in said
            score = re.search(r": ([+−]?[\d.]+)", said)
            assert score and float(score[1].replace("−", "-")) == pytest.approx(result.values[i], abs=0.051)
            assert f"<title>{said}</title>" in page and f"<bdi>{said}</bdi></span>" in page
        known = sum(picture.pixels is not None for picture in result.pictures)
        assert page.count('src="data:image/png;base64,') == page.count("<img") == known
        assert not re.search(r"url\(|@import|https?:|<script|<link", page)
        names = {name for _, attrs in elements.found for name in attrs.get("class", "").split()}
        assert all(name.startswith("apn-") for name in names)
        assert as_text(page, html=True).count("circle") >= 2  # prompt and table
    assert "without the pixels" in saved.plot("html") and "apn-picture" not in sample_results()["exact"].plot("html")


def test_html_colours_sums_and_reaches_what_is_covered(overlapping: ap.Attribution) -> None:
    page = overlapping.plot("html")
    paint = re.search(r'<svg class="apn-paint".*?</svg>', page)
    assert paint
    limit = np.abs(overlapping.values).max()
    steps = np.clip(expected(overlapping, overlapping.values) / limit, -1, 1)
    sums = {round(float(step) * 20) for step in np.unique(steps[np.isfinite(steps)])}
    wanted = {"apn-z" if not step else f"apn-{'p' if step > 0 else 'n'}{abs(step)}" for step in sums}
    assert set(re.findall(r'class="(apn-[a-z]+\d*)" d=', paint[0])) == wanted
    assert "<circle" not in page
    levels = [int(one["style"].removeprefix("z-index: ")) for one in Elements(page).of("apn-region")]
    areas = [mask.sum() for mask in overlapping.pictures[0].regions.values()]
    assert np.argsort(levels).tolist() == np.argsort(-np.array(areas)).tolist()  # small ones are on top
    (picture,) = overlapping.pictures
    same = dict.fromkeys(picture.regions, picture.regions[0])
    covered = replace(overlapping, pictures=(replace(picture, regions=same),)).plot("html")
    assert covered.count("<circle") == 3


def test_large_pictures_become_smaller_pages(grid: ap.Attribution) -> None:
    height, width = 900, 1600
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    regions = {i: np.zeros((height, width), bool) for i in range(2)}
    regions[0][:, :800], regions[1][5, 1500] = True, True
    result = replace(grid, pictures=(ap.Picture("large.png", width, height, regions, noise, "mean"),))
    page = result.plot("html")
    assert 'viewBox="0 0 640 360"' in page and "max-width: 100%" in page and "width: 640px" in page
    tiny = re.findall(r'<path d="(M[^"]*)">', page)[1]
    assert re.fullmatch(r"M\d+ \d+h1v1h-1z", tiny)  # a single pixel does not vanish
    assert scores_of(result.plot("image")).shape == (height, width)


@pytest.mark.parametrize("name", ["hostile", "one-feature-one-token", "zeros", "huge"])
def test_any_result_is_drawn(name: str) -> None:
    result = sample_results()[name]
    bands = np.arange(30) * len(result.features) // 30
    regions = {i: np.broadcast_to(bands == i, (20, 30)) for i in range(len(result.features) - 1 or 1)}
    result = replace(result, pictures=(ap.Picture("<b>.png", 30, 20, regions, None, "mean"),))
    check_view(result.plot("image", labels="names"), html=False)
    page = result.plot("html")
    check_view(page, html=True)
    assert "<b>" not in page
    unknown = replace(result, values=np.full_like(result.values, np.nan))
    check_view(unknown.plot("image"), html=False)
    check_view(unknown.plot("html"), html=True)


def test_outlines_enclose_their_pixels() -> None:
    draw_masks = np.random.default_rng(0)
    for _ in range(60):
        mask = draw_masks.random(draw_masks.integers(1, 9, 2)) < draw_masks.random()
        area, path = 0.0, svg_path(outlines(mask))
        for line in outlines(mask):
            x, y = np.array(line).T
            area += 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
        assert area == mask.sum() and path.count("z") == path.count("M") == len(outlines(mask))
        point = inner_point(mask)
        assert (point is None) == (not mask.any())
        assert point is None or mask[int(point[1]), int(point[0])]
