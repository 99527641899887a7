"""The tree of a drill-down, as a picture and in the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

import apportion as ap
from apportion.testing.results import sample_results
from apportion_plugins.visualizers.groups import groups_of
from apportion_plugins.visualizers.tree import Tree


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def rows_of(figure: Figure) -> list[str]:
    """The outline's texts, in order."""
    return [text.get_text() for text in figure.axes[0].texts]


def test_results_without_a_tree_and_bad_options_are_refused() -> None:
    result = sample_results()["exact"]
    with pytest.raises(ap.ResultError, match=r"method 'shapley' has no tree .*method=\"hierarchical\""):
        replace(result, extras={}).plot("tree")
    for damaged in ([], [{"text": "a"}], [{**result.extras["tree"][0], "parent": 0}], 5):
        with pytest.raises(ap.ResultError, match="is malformed"):
            replace(result, extras={"tree": damaged}).plot("tree")
    for wrong in (2, -1, True, "golf"):
        with pytest.raises(ap.InputError, match=r"must be the position of a target token.*0 ' golf', 1 ','"):
            result.plot("tree", token=wrong)
    for option in ("max_rows", "depth"):
        with pytest.raises(ap.InputError, match=f"{option}=0"):
            result.plot("tree", **{option: 0})


@pytest.mark.parametrize("name", sample_results())
def test_pictures_stay_on_the_page(name: str) -> None:
    figure = sample_results()[name].plot("tree")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def test_the_outline_says_what_was_looked_into() -> None:
    result = sample_results()["exact"]  # two groups: three words looked into, two not
    shown = rows_of(Tree().render(result))
    assert shown == ["Dave lives in", "Dave", "lives", "in", "Palm Coast", "2 features, not expanded"]
    assert rows_of(Tree().render(result, depth=1)) == [
        "Dave lives in", "3 parts not shown", "Palm Coast", "2 features, not expanded",
    ]  # fmt: skip
    lighter = "Lighter bars: groups with their parts below. Each is left out by itself, so scores need not add up."
    assert lighter in texts_of(Tree().render(result)) and lighter not in texts_of(Tree().render(result, depth=1))


def test_the_strongest_rows_stay_with_the_groups_around_them() -> None:
    result = sample_results()["many"]
    groups = groups_of(result)
    figure = Tree().render(result, max_rows=7)
    labels = [text for text in rows_of(figure) if "not" not in text]
    assert len(labels) == 7
    strongest = max(groups, key=lambda group: abs(group.value))
    assert strongest.text in labels
    for group in groups:
        if group.text in labels and group.parent is not None:
            assert groups[group.parent].text in labels
    notes = " ".join(texts_of(figure))
    assert f"Showing the 7 of {len(groups)} groups and features with the largest |score|" in notes
    assert any("more part" in text for text in rows_of(figure)) or "parts not shown" in notes


def test_one_token_has_its_own_values_and_errors(tmp_path: Path) -> None:
    result = sample_results()["sampled"]
    groups, saved = groups_of(result, 1), groups_of(ap.Attribution.load(result.save(tmp_path / "r.json")), 1)
    assert groups == saved
    assert groups[0].value == pytest.approx(result.token_values[1, :3].sum())
    assert groups[0].half_width == pytest.approx(1.96 * result.token_std_error[1, :3].sum())
    assert any("Token 1, “and”, of the target" in text for text in texts_of(result.plot("tree", token=1)))
    assert all(np.isnan(group.half_width) for group in groups_of(sample_results()["unknown-errors"]))


def test_the_terminal_prints_the_tree_and_the_features_when_sorted() -> None:
    result = sample_results()["exact"]

    def printed(**options: object) -> str:
        stream = io.StringIO()
        Console(file=stream, width=100, color_system=None).print(result.plot("terminal", **options))
        return stream.getvalue()

    assert "Dave lives in  " in printed() and "\n  lives " in printed() and "Groups with a size" in printed()
    assert "Dave lives in  " not in printed(sort=True) and "Groups with a size" not in printed(sort=True)
    few = printed(max_features=2)
    assert "Showing the 2 of " in few and "(max_features=None shows all)" in few
