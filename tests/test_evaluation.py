"""Metrics as they are run, and what shows their numbers."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
from collections.abc import Mapping

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import spearmanr

import apportion as ap
from apportion.hooks.manager import load_plugins
from apportion.results.evaluation import Evaluation, compare
from apportion.runs.evaluate import measure_all
from apportion.testing import sample_results, tiny_explainer
from apportion.testing.games import random_moebius
from apportion_plugins.visualizers.numbers import Numbers

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


def text(evaluations: list[Evaluation], width: int = 100, **console: object) -> str:
    view = PLUGINS["visualizers"].get("terminal").make().render_evaluations(evaluations)
    out = io.StringIO()
    Console(file=out, width=width, **console).print(view)
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
    with tiny_explainer() as explainer, pytest.raises(ap.InputError, match="random_orders=5 must be even"):
        explainer.evaluate(RESULT, random_orders=5)  # before the model and the result are compared


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


# --- several results at once -----------------------------------------------------------------------------------------

TEXT, TARGET = "a b c d e f g h", " x"


class Magnitudes:
    """Magnitudes in a unit of their own, in an order that is given."""

    estimand, requires = "weight", frozenset[ap.Capability]()

    def __init__(self, *values: float) -> None:
        self.values = values

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        values = torch.tensor(self.values, dtype=torch.float64)[:, None].expand(-1, game.n_outputs)
        return ap.Estimate(values.clone(), unit="weight", signed=False)


def test_results_that_are_evaluated_together_share_draws_and_scores(explainer: ap.Explainer) -> None:
    metrics = ["deletion", "insertion", "lds", "infidelity"]
    made = [explainer.attribute(TEXT, TARGET, method=name) for name in ("ablation", "kernel_shap", "banzhaf")]
    found = explainer.evaluate(made, metrics, random_orders=6, options={"lds": {"masks": 16}})
    assert found.names == ("ablation", "kernel_shap", "banzhaf")
    alone = [explainer.evaluate(one, metrics, random_orders=6, options={"lds": {"masks": 16}}) for one in made]
    for together, apart in zip(found.evaluations, alone, strict=True):
        assert {m: together[m].value for m in metrics} == {m: apart[m].value for m in metrics}
    assert [one.evaluations for one in alone] == [0, 0, 0], "each result knows all scores"
    first, *others = found.evaluations
    assert {tuple(one["lds"].extras["scores"]) for one in others} == {tuple(first["lds"].extras["scores"])}
    assert others[0].random["deletion"][3].value == pytest.approx(first.random["deletion"][3].value)
    # Another explainer scores for one result what it scores for the others too, but for their own curves.
    with tiny_explainer() as other:
        copies = [copy.deepcopy(one) for one in made]
        whole = other.evaluate(copies, metrics, random_orders=6)
        once = tiny_explainer()
        apart = [once.evaluate(one, metrics, random_orders=6).evaluations for one in map(copy.deepcopy, made)]
        once.close()
    assert whole.evaluations[0].evaluations == apart[0]
    assert all(0 <= one.evaluations <= 2 * 8 for one in whole.evaluations[1:])
    assert sum(one.evaluations for one in whole.evaluations) < sum(apart) - 100


def test_every_metric_has_a_percentile_among_random_orders(explainer: ap.Explainer) -> None:
    best = explainer.attribute(TEXT, TARGET, method="shapley")
    worst = dataclasses.replace(best, values=-best.values)
    found = measure_all(game(8), best, chosen(), random_orders=10, all_by_chance=True)
    assert set(found.random) == set(found.measurements)
    for name in found.measurements:
        wins = [
            (one.value < found[name].value) if found.higher_is_better[name] else (one.value > found[name].value)
            for one in found.random[name]
        ]
        ties = [one.value == pytest.approx(found[name].value, rel=1e-9) for one in found.random[name]]
        share = sum(0.5 if tie else float(win) for win, tie in zip(wins, ties, strict=True)) / 10
        assert found.percentile(name) == pytest.approx(share), name
    both = explainer.evaluate([best], ["insertion"], random_orders=10)
    reverse = measure_all(game(8), worst, chosen("insertion"), random_orders=10)
    assert both.evaluations[0].percentile("insertion") >= 0.9
    assert 0 <= reverse.percentile("insertion") <= 1
    assert math.isnan(measure_all(game(8), best, chosen("lds")).percentile("lds"))
    with pytest.raises(ap.InputError, match="called 'nope'"):
        found.percentile("nope")


def test_the_table_of_several_results_has_their_cost(explainer: ap.Explainer) -> None:
    budgets = [explainer.attribute(TEXT, TARGET, method="kernel_shap", budget=budget) for budget in (24, 48)]
    weights = explainer.attribute(TEXT, TARGET, method=Magnitudes(*range(8)))
    found = explainer.evaluate([*budgets, weights], ["deletion", "lds"])
    assert {one.unit for one in found.evaluations} == {"nats"}
    assert found.names[:2] == ("kernel_shap (budget 24)", "kernel_shap (budget 48)")
    table = found.to_dataframe()
    assert list(table["evaluations"])[::2] == [24, 48, 0]
    assert list(table["forwarded_tokens"])[::2] == [one.provenance.forwarded_tokens for one in (*budgets, weights)]
    assert list(table["percentile"]) == [one.percentile(m) for one in found.evaluations for m in ("deletion", "lds")]
    shown = text(list(found.evaluations))
    rows = {line.split("  ")[0]: line for line in shown.splitlines()}
    tokens = f"{budgets[0].provenance.forwarded_tokens:,}"
    assert tokens in rows["kernel_shap (budget 24)"] and " 24 " in rows["kernel_shap (budget 24)"]
    assert "4 random orders" in shown and "favour Banzhaf" in shown
    assert "The values of Magnitudes are magnitudes" in " ".join(shown.split())
    page = found.to_html().fragment
    assert tokens in page and "seconds" in page and page.count("<tr>") == 4
    data = found.evaluations[0].to_dict()
    assert (data["provenance"]["evaluations"], data["signed"]) == (24, True)
    for width in (60, 80, 200):
        lines = text(list(found.evaluations), width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert not any("…" in line for line in lines)


def test_results_of_different_games_are_not_evaluated_together(explainer: ap.Explainer) -> None:
    call = {"prompt": "a b c d", "target": " x", "method": "ablation"}
    first = explainer.attribute(**call)
    for change, message in (
        ({"prompt": ap.Text("a b c d", baseline="z")}, "differ in what replaces absent features"),
        ({"target_fn": "prob"}, "differ in their target function"),
        ({"prompt": "a b c"}, "differ in their features"),
        ({"target": " y"}, "differ in their target"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.evaluate([first, explainer.attribute(**{**call, **change})], ["deletion"])
    draws = [
        ap.Template("{a} {b}", {"a": "1", "b": "2"}, baselines={"a": list("stuv"), "b": list("wxyz")}, draws=4)
    ] * 2
    drawn = [explainer.attribute(p, " x", method="ablation", seed=seed) for seed, p in enumerate(draws)]
    with pytest.raises(ap.InputError, match="differ in what"):
        explainer.evaluate(drawn, ["deletion"])
    for wrong, message in (([], "must not be empty"), ([first, 3], "this is int: 3"), ("r.json", "this is str")):
        with pytest.raises(ap.InputError, match=message):
            explainer.evaluate(wrong)


def test_rankings_of_magnitudes_are_compared_with_magnitudes(explainer: ap.Explainer) -> None:
    def attributed(*values: float, signed: bool = True) -> ap.Attribution:
        found = explainer.attribute("a b c d", " x", method=Magnitudes(*map(abs, values)))
        return dataclasses.replace(found, values=np.array(values), signed=signed)

    one, other = attributed(1.0, -4.0, 3.0, 2.0), attributed(1.0, 4.0, 3.0, 2.0, signed=False)
    found = compare([one, other, attributed(1.0, 4.0, 3.0, 2.0)])
    assert found.rank_correlation[0, 1] == pytest.approx(1.0)
    assert found.rank_correlation[1, 2] == pytest.approx(1.0)
    assert found.rank_correlation[0, 2] == pytest.approx(spearmanr([1, -4, 3, 2], [1, 4, 3, 2]).statistic)
    for view in (shown_comparison(found), found.to_html().fragment, " ".join(texts_in(found.plot()))):
        assert "compare the magnitudes of both results" in " ".join(view.split())
        assert "magnitudes" in view


def shown_comparison(found: ap.ResultComparison, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(PLUGINS["visualizers"].get("terminal").make().render_comparison(found))
    return out.getvalue()


def texts_in(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_each_target_token_can_be_compared(explainer: ap.Explainer) -> None:
    results = [explainer.attribute("a b c d", " xy", method=method) for method in ("shapley", "ablation")]
    whole = compare(results)
    assert len(whole.tokens) == 3
    last = compare(results, token=2)
    np.testing.assert_array_equal(last.values, [one.token_values[2] for one in results])
    np.testing.assert_array_equal(whole.tokens[2].rank_correlation, last.rank_correlation)
    assert last.rank_correlation[0, 1] == pytest.approx(spearmanr(*last.values).statistic)
    np.testing.assert_array_equal(last.to_dataframe()["ablation"], results[1].token_values[2])
    cell = Numbers(last.values[1], decimals=2).signed(last.values[1][0])
    for view in (shown_comparison(last), last.to_html().fragment):
        assert "Token 2, “y”" in view and cell in view
    assert "Token 2, “y”" in " ".join(texts_in(last.plot()))
    for token in (3, -1, True, "y"):
        with pytest.raises(ap.InputError, match="must be a position in the target: from 0 to 2"):
            compare(results, token=token)
    other = dataclasses.replace(results[1], target_tokens=(" x", "y"), target_text=" xy")
    with pytest.raises(ap.InputError, match="different target tokens"):
        compare([results[0], other], token=0)
    whole_alone = dataclasses.replace(results[1], token_values=np.full((3, 4), np.nan))
    assert compare([results[0], whole_alone]).rank_correlation.shape == (2, 2)
    with pytest.raises(ap.InputError, match="no values of single target tokens in the results of ablation"):
        compare([results[0], whole_alone], token=0)
    with pytest.raises(ap.InputError, match="token= is for attributions"):
        compare([explainer.evaluate(results[0], ["deletion"])], token=0)


def test_many_results_have_matrices_that_fit_a_terminal(explainer: ap.Explainer) -> None:
    one = explainer.attribute("a b c d e", " x", method="kernel_shap", budget=12)
    names = [f"method_number_{i}" for i in range(15)]
    many = [
        dataclasses.replace(
            one, values=one.values * (-1) ** i, provenance=dataclasses.replace(one.provenance, method=n)
        )
        for i, n in enumerate(names)
    ]
    found = compare(many)
    shown = shown_comparison(found, 80)
    assert max(map(cell_len, shown.splitlines())) <= 80 and "…" not in shown
    assert all(f"{i + 1} {name}" in shown for i, name in enumerate(names))
    assert "Rank correlation" in shown and "Number of the top 3 in common" in shown
    row = next(line for line in shown.splitlines() if line.split()[-15:][:1] == ["·"])
    assert row.split()[-14:] == ["−1", "1"] * 7
    page = found.to_html().fragment
    assert page.count("<tr>") == (1 + 5) + 2 * (1 + 15)
