"""HTML in files and notebooks, and results in a few lines."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import apportion as ap
from apportion.cli import main
from apportion.runs.cost import Cost
from apportion.testing import sample_results, tiny
from apportion.testing.visualizer import as_text, check_view
from test_figures import evaluation
from test_visualizers import grouped, of_words

DOCUMENT = "The committee met on Tuesday to discuss the proposal for a new bridge across the river. " * 20


def documents() -> ap.Attribution:
    result = of_words("one two three", [" yes", "."])
    texts = [f"{DOCUMENT}{i}" for i in range(3)]
    return replace(
        result,
        features=tuple(ap.Feature(f"doc{i}.txt", text) for i, text in enumerate(texts)),
        segments=tuple(ap.Segment(f"{text}\n", i) for i, text in enumerate(texts)),
    )


def body_of(view: str) -> str:
    return view.rpartition("</style>")[2]


def test_html_is_a_page_in_files_and_a_fragment_in_notebooks(tmp_path: Path) -> None:
    result = grouped()
    view = result.plot("html")
    for content in (view.save(tmp_path / "x.html").read_text(encoding="utf-8"), str(view)):
        assert content.startswith('<!doctype html>\n<html lang="en">')
        assert '<meta charset="utf-8">' in content and '<meta name="viewport"' in content
        assert "<title>Shapley value: playing golf.</title>" in content
    assert view._repr_html_() == result._repr_html_() == view.fragment
    assert view.fragment.startswith('<div class="apn-view">') and view.fragment in view
    for other in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        assert isinstance(other, ap.HtmlView) and other == view and other.fragment == view.fragment
    with pytest.raises(ap.ResultError, match="Cannot write"):
        view.save(tmp_path / "nowhere" / "x.html")


def test_the_command_line_writes_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, page = str(grouped().save(tmp_path / "x.json")), tmp_path / "x.html"
    assert main(["show", source, "--plot", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == grouped().plot("html")
    capsys.readouterr()
    assert main(["show", source, "--view", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")


def test_names_and_values_are_beside_the_text() -> None:
    html = grouped().plot("html")
    marks = re.findall(r'>([^<]+)<small class="apn-mark"><bdi>([^<]*)</bdi>', html)
    assert marks == [
        ("Dave", "name + pronoun +0.900"),
        ("Palm Coast", "city −0.500"),
        ("lawyer", "job 0"),
        ("His", "name + pronoun +0.900"),
    ]
    pieces = of_words("un believ able", [" x", " y"])
    joined = replace(pieces, segments=tuple(ap.Segment(text, i) for i, text in enumerate(("un", "believ", "able"))))
    assert len(re.findall("apn-mark", body_of(joined.plot("html")))) == 1  # not in the middle of a word
    many = of_words("word " * 100, [" x", " y"])
    assert len(re.findall("apn-mark", body_of(many.plot("html")))) == 20
    assert "±0.20</small>" in joined.plot("html")


def test_texts_of_documents_appear_once() -> None:
    html = documents().plot("html")
    assert html.count(DOCUMENT.strip()) == 3
    text = as_text(html, html=True)
    assert text is not None and len(text) < 3 * len(DOCUMENT) + 2500
    assert re.search(r"<td><bdi>The committee met[^<]{0,40}…[^<]{0,30}</bdi></td>", html)
    # Without segments, the table is the only place.
    assert replace(documents(), segments=()).plot("html").count(DOCUMENT.strip()) == 3


def test_groups_and_interactions_have_tables() -> None:
    result = sample_results()["sampled"]
    text = as_text(result.plot("html"), html=True)
    assert text is not None and "3 features, not expanded" in text
    assert "Shapley interaction index, the strongest pairs" in text and "Showing the 20 of 28 pairs" in text
    plain = as_text(replace(result, extras={}).plot("html"), html=True)
    assert plain is not None and "not expanded" not in plain and "pairs" not in plain


def test_evaluations_and_comparisons_are_displayed() -> None:
    one = evaluation()
    both = ap.compare([one, replace(one, method="<b>other</b>")])
    exact, other = grouped(), replace(grouped(), values=np.array([0.1, 0.2, -0.3]))
    for shown in (one, both, ap.compare([exact, other])):
        view = shown.to_html()
        check_view(view, html=True)
        assert shown._repr_html_() == view.fragment and view.startswith("<!doctype html>")
        assert "<i>golf" not in view and "<b>other" not in view
        assert len(body_of(view.fragment)) < 4000
    text = as_text(both.to_html(), html=True)
    assert text is not None and "deletion" in text and "2.50" in text and "<b>other</b>" in text
    page = ap.compare([exact, other]).to_html()
    # On narrow screens the head of a column stands beside each number.
    assert page.count("data-head=") == 2 * len(exact.features) + 2 and page.count("apn-table apn-stacked") == 2
    table = as_text(page, html=True)
    assert table is not None and "+0.900" in table and "−0.300" in table and "rank correlation" in table


def test_results_are_printed_in_a_few_lines() -> None:
    cost = Cost("shapley", "", 3, 2, 8, 120, 120, 1, 0.5, 240.0, 1000, None)
    hostile = sample_results()["hostile"]
    shown = [grouped(), documents(), hostile, sample_results()["many"], evaluation(), cost]
    shown += [ap.compare([evaluation(), evaluation("other")]), ap.compare([grouped(), grouped()])]
    for one in shown:
        text = repr(one)
        assert str(one) == text and len(text) < 400 and text.count("\n") <= 2, text
        assert text.isprintable() or text.replace("\n", "").isprintable()
    assert len(repr(grouped().plot("html"))) < 120 and len(str(grouped().plot("html"))) > 2000
    assert "8 distinct prompts" in cost._repr_html_() and "<table>" in cost._repr_html_()
    assert "against ' a cat'" in repr(replace(evaluation(), contrast=" a cat"))
    first = repr(grouped())
    assert "Shapley value" in first and "' playing golf.'" in first and "'name + pronoun' +0.9" in first
    assert "2,048 evaluations" in first and "deletion 2.5, insertion 4" in repr(evaluation())
    assert "8 distinct prompts" in repr(cost) and "0.5 s" in repr(cost)


def test_notes_name_arguments_in_python_and_flags_in_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "ap.Chat([{'role': 'user', 'content': …}]) uses it, or as_chat=True."
    result = replace(grouped(), provenance=replace(grouped().provenance, notes=(said,)))
    path = result.save(tmp_path / "result.json")
    assert said.split()[0] in str(result.plot("html")).replace("&#x27;", "'")
    assert main(["show", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--as-chat uses it, or --as-chat." in shown and "ap.Chat" not in shown
    assert ap.Attribution.load(path).provenance.notes == (said,)


def test_explainers_are_printed_in_a_line() -> None:
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        assert repr(explainer) == "Explainer('LlamaForCausalLM', torch, cpu, float64)"
