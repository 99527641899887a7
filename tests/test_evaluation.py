"""Metrics as they are run, and what shows their numbers."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import spearmanr

import apportion as ap
from apportion.hooks.manager import load_plugins
from apportion.results.evaluation import Evaluation, compare
from apportion.runs.evaluate import measure_all
from apportion.testing import sample_results
from apportion.testing.games import random_moebius

PLUGINS = load_plugins()
RESULT = dataclasses.replace(sample_results()["exact"], plugins=PLUGINS)
N = len(RESULT.features)


def game(n: int = N) -> ap.Game:
    return ap.Game.from_function(random_moebius(n, 2), n)


def chosen(*names: str, **options: Mapping[str, object]) -> dict[str, tuple[ap.Metric, Mapping[str, object]]]:
    return {
        name: (PLUGINS["metrics"].get(name).make(), options.get(name, {}))
        for name in names or PLUGINS["metrics"].names()
    }


def evaluated(*names: str, result: ap.Attribution = RESULT, **options: Mapping[str, object]) -> Evaluation:
    return measure_all(game(len(result.features)), result, chosen(*names, **options))


def text(evaluations: list[Evaluation], **console: object) -> str:
    view = PLUGINS["visualizers"].get("terminal").make().render_evaluations(evaluations)
    out = io.StringIO()
    Console(file=out, width=100, **console).print(view)
    return out.getvalue()


def test_it_says_what_was_measured_and_what_it_cost() -> None:
    found = evaluated("lds", "deletion", lds={"masks": 8})
    assert list(found.measurements) == ["lds", "deletion"]
    assert found.higher_is_better == {"lds": True, "deletion": False}
    assert found.options == {"lds": {"masks": 8}, "deletion": {"steps": 100}}
    assert (found.method, found.estimand, found.n_features) == (RESULT.provenance.method, RESULT.estimand, N)
    assert found["lds"].std_error is not None
    known = game()
    first = measure_all(known, RESULT, chosen("deletion"), random_orders=0)
    assert first.evaluations == N + 1
    assert measure_all(known, RESULT, chosen("deletion"), random_orders=0).evaluations == 0


def test_a_metrics_numbers_do_not_depend_on_the_others() -> None:
    many = sample_results()["sampled"]
    alone = {name: evaluated(name, result=many)[name] for name in PLUGINS["metrics"].names()}
    together = evaluated(*reversed(PLUGINS["metrics"].names()), result=many)
    assert {name: m.value for name, m in alone.items()} == {n: together[n].value for n in alone}
    few = {"lds": {"masks": 8}}
    seeds = [measure_all(game(8), many, chosen("lds", **few), seed=seed)["lds"].value for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_everything_is_refused_before_the_model_runs() -> None:
    def never(mask: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it asked")

    untouched = ap.Game.from_function(never, N)
    for metrics, message in (
        (chosen("deletion", "top_k_drop", top_k_drop={"k": 0}), "k=0 must be a whole number of at least 1"),
        (chosen("deletion", "lds", lds={"mask": 9}), "The metric 'lds' has no option 'mask'. Did you mean 'masks'"),
        ({}, "The list of metrics must not be empty"),
    ):
        with pytest.raises(ap.InputError, match=message):
            measure_all(untouched, RESULT, metrics)
    with pytest.raises(ap.InputError, match="7"):
        measure_all(ap.Game.from_function(never, 7), RESULT, chosen("deletion"))


class Faulty:
    """Returns what it is told to."""

    higher_is_better = True

    def __init__(self, found: object) -> None:
        self.found = found

    def measure(self, game: ap.Game, values: torch.Tensor, *, rng: torch.Generator) -> object:
        values.zero_()
        game.values(torch.ones(1, game.n_features, dtype=torch.bool))
        return self.found() if callable(self.found) else self.found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (0.5, "The metric 'faulty' returned float, not an apportion.Measurement"),
        (ap.Measurement(math.nan), "returned the value nan"),
        (ap.Measurement(torch.tensor(1.0)), "returned the value tensor"),
        (ap.Measurement(1.0, std_error=-1.0), "returned the standard error -1.0"),
        (ap.Measurement(1.0, extras=[1]), "returned extras"),
        (lambda: 1 / 0, r"The metric 'faulty' failed: ZeroDivisionError: division by zero \(in "),
    ],
)
def test_a_faulty_metric_is_named(found: object, message: str) -> None:
    with pytest.raises(ap.PluginError, match=message):
        measure_all(game(), RESULT, {"faulty": (Faulty(found), {})})


def test_a_metric_without_a_direction_is_refused() -> None:
    class Undecided(Faulty):
        higher_is_better = "yes"

    with pytest.raises(ap.PluginError, match="The metric 'odd' must have True or False as higher_is_better"):
        measure_all(game(), RESULT, {"odd": (Undecided(0.0), {})})


def test_a_metric_cannot_spoil_anothers_values() -> None:
    metrics = {"faulty": (Faulty(ap.Measurement(1.0, std_error=math.nan)), {}), **chosen("deletion")}
    found = measure_all(game(), RESULT, metrics)
    assert found["deletion"].value == evaluated("deletion")["deletion"].value
    assert np.isfinite(RESULT.values).all() and RESULT.values.any()


def test_json_and_tables() -> None:
    found = evaluated()
    data = json.loads(found.to_json())
    assert data["schema"] == "apportion.evaluation"
    assert data["measurements"]["deletion"]["value"] == found["deletion"].value
    assert data["measurements"]["deletion"]["extras"]["shares"] == found["deletion"].extras["shares"]
    assert data["options"]["comprehensiveness"]["shares"] == [0.01, 0.05, 0.1, 0.2, 0.5]
    table = found.to_dataframe()
    assert list(table.columns) == ["metric", "value", "std_error", "random_order", "higher_is_better"]
    assert list(table["metric"]) == list(found.measurements)
    unwritable = measure_all(game(), RESULT, {"odd": (Faulty(ap.Measurement(1.0, extras={"x": object()})), {})})
    with pytest.raises(ap.ResultError, match="cannot be written as JSON"):
        unwritable.to_json()
    assert copy.deepcopy(found).plugins is None


def test_the_table_in_the_terminal() -> None:
    many = sample_results()["sampled"]
    found = evaluated("deletion", "lds", result=many, lds={"masks": 16})
    shown = text([found])
    assert "↓ lower" in shown and "↑ higher" in shown and "95 %" in shown
    assert text([found], legacy_windows=False, color_system=None)
    other = dataclasses.replace(found, method="[bold]x[/]", measurements={"lds": found["lds"]})
    both = text([found, other])
    assert "[bold]x[/]" in both
    assert text([found, found]).count("#2") == 2
    found.show()


def test_pictures(recwarn: pytest.WarningsRecorder) -> None:
    found = evaluated()
    one = found.plot()
    assert isinstance(one, Figure)
    labels = [label.get_text() for legend in one.axes if legend.get_legend() for label in legend.get_legend().texts]
    assert len(labels) == 8 and labels[0].startswith("highest first: area ")
    assert labels[2].startswith("random order: area ")
    several = compare([found, dataclasses.replace(found, method="other")]).plot("insertion")
    for narrow in (found.plot(size=(3.3, None)), compare([found, found]).plot(size=(3.3, None))):
        assert narrow.get_size_inches()[1] < 5.2
        assert sum(axes.get_legend() is not None for axes in narrow.axes) == 1
        panels = [axes for axes in narrow.axes if axes.get_title(loc="left")]
        assert len(panels) == 2 and panels[0].get_ylim() == panels[1].get_ylim()
    (legend,) = [axes.get_legend() for axes in found.plot(size=(3.3, None)).axes if axes.get_legend()]
    areas = [f"{found[name].value:.2f}".replace("-", "−") for name in ("deletion", "insertion")]
    first = legend.texts[0].get_text()
    assert first.startswith("highest first: areas") and all(area in first for area in areas)
    only = evaluated("insertion").plot()
    assert len(only.axes) == 2
    flat = evaluated("deletion", "insertion", result=dataclasses.replace(RESULT, values=np.zeros(N))).plot()
    hostile = evaluated("deletion", result=dataclasses.replace(sample_results()["hostile"], plugins=PLUGINS)).plot()
    for figure in (one, several, only, flat, hostile):
        figure.savefig(io.BytesIO(), format="png")
    assert not recwarn.list
    with pytest.raises(ap.InputError, match="Metrics that can: deletion, insertion"):
        evaluated("lds").plot()
    with pytest.raises(ap.InputError, match="'lds' is not among the metrics"):
        found.plot("lds")
    with pytest.raises(ap.InputError, match="has no option 'colour'"):
        found.plot("deletion", colour="red")


def test_what_cannot_be_compared_is_refused() -> None:
    found = evaluated("lds")
    with pytest.raises(ap.InputError, match="differ in their target"):
        compare([found, dataclasses.replace(found, target="another")])
    with pytest.raises(ap.InputError, match="must not be empty"):
        compare([])
    with pytest.raises(ap.InputError, match="differ in their target_fn"):
        compare([found, dataclasses.replace(found, target_fn="entropy")])
    with pytest.raises(ap.InputError, match="called 'lsd'. Did you mean 'lds'"):
        found["lsd"]
    with pytest.raises(ap.InputError, match="called 'nope'"):
        found.random_value("nope")
    assert "lds" in found and "nope" not in found and math.isnan(found.random_value("lds"))
    table = compare([found, dataclasses.replace(found, method="other")]).to_dataframe()
    assert list(table["method"]) == [RESULT.provenance.method, "other"]


def test_random_orders_are_a_yardstick() -> None:
    """In the values, the table, the JSON and the picture; drawn with the seed, counted, and shared by both curves."""
    found = evaluated("deletion", "insertion", "lds")
    assert set(found.random) == {"deletion", "insertion"}
    assert len(found.random["deletion"]) == 4
    alone = evaluated("deletion")
    none = measure_all(game(), RESULT, chosen("deletion"), random_orders=0)
    assert none.random == {} and none["deletion"].value == alone["deletion"].value
    assert alone.random["deletion"] == found.random["deletion"]
    assert found.random_value("deletion") == pytest.approx(found.random_value("insertion"))
    known = game(8)
    eight = dataclasses.replace(RESULT, values=np.arange(8.0))
    own = measure_all(known, eight, chosen("deletion", "insertion"), random_orders=0).evaluations
    with_orders = measure_all(known, eight, chosen("deletion", "insertion"), random_orders=2).evaluations
    assert own == 2 * 8
    assert 0 < with_orders <= 2 * 7, "of each pair of orders, insertion asks nothing that deletion did not"
    other_seed = measure_all(game(), RESULT, chosen("deletion"), seed=1)
    assert other_seed.random_value("deletion") != found.random_value("deletion")
    assert found.to_dataframe()["random_order"].isna().tolist() == [False, False, True]
    assert json.loads(found.to_json())["random"]["deletion"][0]["value"] == found.random["deletion"][0].value
    shown = text([found])
    assert "random order" in shown and "mean over 4 random orders" in shown
    assert "random order" not in text([none])
    with pytest.raises(ap.InputError, match="random_orders=3 must be even"):
        measure_all(game(), RESULT, chosen("deletion"), random_orders=3)


class Drawn:
    """Samples, and forgets its standard error."""

    higher_is_better = True

    def measure(self, game: ap.Game, values: torch.Tensor, *, rng: torch.Generator) -> ap.Measurement:
        return ap.Measurement(float(game.values(torch.rand(9, game.n_features, generator=rng) < 0.5)[:, 0].mean()))


def test_a_sampled_measurement_without_an_error_is_not_called_exact() -> None:
    found = measure_all(game(), RESULT, {"drawn": (Drawn(), {}), **chosen("aopc")})
    assert math.isnan(found["drawn"].std_error)
    assert found["aopc"].std_error is None
    assert found.to_dataframe()["std_error"].isna().tolist() == [True, False]
    (row,) = [line for line in text([found]).splitlines() if line.startswith("drawn")]
    assert row.rstrip().endswith("?")


# --- attributions side by side ---------------------------------------------------------------------------------------


def test_results_are_compared_side_by_side(explainer: ap.Explainer) -> None:
    def attributed(method: str, **options: object) -> ap.Attribution:
        return explainer.attribute("a b c d e f g", " x", method=method, **options)

    rough = [attributed("kernel_shap", budget=40, seed=seed) for seed in (0, 1)]
    found = compare([*rough, attributed("ablation")])
    assert found.names == ("kernel_shap (seed 0)", "kernel_shap (seed 1)", "ablation")
    assert np.allclose(np.diag(found.rank_correlation), 1)
    expected = spearmanr(rough[0].values, rough[1].values).statistic
    assert found.rank_correlation[0, 1] == pytest.approx(expected)
    tops = [set(np.argsort(-abs(one.values))[:2]) for one in rough]
    assert found.top_overlap(2)[0, 1] == len(tops[0] & tops[1]) / 2
    table = found.to_dataframe()
    assert list(table.columns) == ["feature", "text", *found.names]
    np.testing.assert_array_equal(table["ablation"], found.results[2].values)
    out = io.StringIO()
    Console(file=out, width=120).print(PLUGINS["visualizers"].get("terminal").make().render_comparison(found))
    shown = out.getvalue()
    assert "rank correlation" in shown and "top 3 in common" in shown
    assert f"{found.rank_correlation[0, 1]:.2f}".replace("-", "−") in shown
    out = io.StringIO()
    Console(file=out, width=80).print(PLUGINS["visualizers"].get("terminal").make().render_comparison(found))
    assert "…" not in out.getvalue() and max(map(len, out.getvalue().splitlines())) <= 80
    words = set(out.getvalue().split())
    assert {word for head in (*found.names, "rank correlation", "top 3 in common") for word in head.split()} <= words
    found.show()
    assert repr(found) == "ResultComparison(kernel_shap (seed 0), kernel_shap (seed 1), ablation)"


def test_results_that_do_not_belong_together_are_refused(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b c", " x")
    for others, message in (
        ([explainer.attribute("a b d", " x")], "differ in their features: 3 each, of which number 3 is 'c' and 'd'"),
        ([explainer.attribute("a b", " x")], "features: 3 and 2, of which number 3 is 'c' and none"),
        ([explainer.attribute("a b c", " y")], "differ in their target: ' x' and ' y'"),
        ([explainer.evaluate(result, ["aopc"])], "all of one kind; these are: Attribution, Evaluation"),
        ([5], "these are: Attribution, int"),
    ):
        with pytest.raises(ap.InputError, match=message):
            compare([result, *others])
    with pytest.raises(ap.InputError, match="takes a list of results or of evaluations, not Attribution"):
        compare(result)


# --- Explainer.evaluate ----------------------------------------------------------------------------------------------


def test_what_a_run_scored_is_not_scored_again(explainer: ap.Explainer) -> None:
    """After an exact table nothing is left to ask; and what one evaluation asked the next one knows."""
    exact = explainer.attribute("a b c d e", " x", method="shapley")
    assert explainer.evaluate(exact).evaluations == 0
    loo = explainer.attribute("a b c d e f g h", " x", method="ablation")
    first, again = (explainer.evaluate(loo, ["deletion", "lds"], seed=1) for _ in range(2))
    assert first.evaluations > 0
    assert again.evaluations == 0
    assert first["deletion"].value == again["deletion"].value
    assert loo.provenance.evaluations == 9, "a result's own count stays"


def test_an_evaluation_scores_the_contrast_of_its_result(explainer: ap.Explainer) -> None:
    call = {"prompt": "a b c d", "target": " x", "contrast": " y", "target_fn": "contrast_log_prob_diff"}
    result = explainer.attribute(**call, method="shapley")
    found = explainer.evaluate(result, ["top_k_drop", "deletion"])
    top = int(np.argmax(result.values))
    without = " ".join(word for i, word in enumerate("abcd") if i != top)
    left = explainer.attribute(**{**call, "prompt": ap.Text(without)}, method="shapley").full_value
    assert found["top_k_drop"].value == pytest.approx(result.full_value - left)
    assert (found.contrast, found.to_dict()["contrast"]) == (" y", " y")
    assert "against “ y”" in text([found])
    plain = explainer.evaluate(explainer.attribute("a b c d", " x"), ["deletion"])
    assert plain.contrast is None
    with pytest.raises(ap.InputError, match="differ in their contrast"):
        compare([found, plain])


def test_metrics_that_cannot_be_asked_are_refused(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b c", " x")
    for asked, message in (
        ({"metrics": "lds"}, r"metrics='lds' is one metric; write metrics=\['lds'\]"),
        ({"metrics": ["ldss"]}, "Did you mean 'lds'"),
        ({"metrics": 5}, "must be a list of names or Metric objects"),
        ({"metrics": [5]}, "must be a list of names or Metric objects"),
        ({"seed": "x"}, "seed='x' must be a whole number"),
        ({"metrics": []}, "The list of metrics must not be empty"),
        ({"metrics": ["lds"], "options": {"deletion": {}}}, "given for the metric 'deletion', which is not among"),
        ({"metrics": ["lds"], "options": {"lds": 3}}, "must hold a dict for each metric"),
        ({"metrics": ["lds"], "options": {"lds": {"mask": 3}}}, "no option 'mask'. Did you mean 'masks'"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.evaluate(result, **asked)
