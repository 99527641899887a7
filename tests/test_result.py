"""Results: saved whole, loaded strictly, tabulated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.files import write_atomically
from apportion.game.method_runner import check_estimate
from apportion_plugins.visualizers.facts import summary


def result(**changes: object) -> ap.Attribution:
    """Two features and three target tokens, with errors."""
    made = ap.Attribution(
        features=(
            ap.Feature("name", "Dave", baseline="Sarah"),
            ap.Feature("city + state", "Palm … FL", ("city", "state")),
        ),
        target_tokens=(" golf", ",", "🙂"),
        values=np.array([1.5, -0.25]),
        token_values=np.array([[1.0, 0.5], [0.25, -0.5], [0.25, -0.25]]),
        std_error=np.array([0.1, np.nan]),
        token_std_error=np.full((3, 2), 0.2),
        estimand="Shapley value",
        base_value=-3.0,
        full_value=-1.7,
        segments=(ap.Segment("Dave", 0), ap.Segment(" lives in "), ap.Segment("Palm Coast", 1)),
        target_text=" golf,🙂",
        provenance=ap.Provenance(method="shapley", options={"a": 1}, notes=("one", "two"), versions={"torch": "2"}),
        extras={"n_permutations": 4, "table": np.eye(2)},
    )
    return replace(made, **changes)


def test_a_saved_result_is_the_same_when_loaded(tmp_path: Path) -> None:
    made = result()
    path = made.save(tmp_path / "dave.json")
    loaded = ap.Attribution.load(path)
    for name in ("values", "token_values", "std_error", "token_std_error"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))
    for name in ("features", "target_tokens", "segments", "provenance", "estimand", "base_value", "full_value"):
        assert getattr(loaded, name) == getattr(made, name)
    assert loaded.extras == {"n_permutations": 4, "table": [[1, 0], [0, 1]]}
    assert loaded.efficiency_gap == pytest.approx(-1.7 + 3.0 - 1.25)
    assert loaded.save(tmp_path / "again.json").read_text() == path.read_text()
    assert "🙂" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text())["std_error"] == [0.1, None]


def test_exact_results_have_no_errors(tmp_path: Path) -> None:
    made = result(std_error=None, token_std_error=None, base_value=None)
    loaded = ap.Attribution.load(made.save(tmp_path / "r.json"))
    assert loaded.std_error is None
    assert loaded.efficiency_gap is None


def edited(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    path = result().save(tmp_path / "r.json")
    good = path.read_text()
    with pytest.raises(ap.ResultError, match="schema version 3; this version of apportion reads 1 to 2. Upgrade"):
        ap.Attribution.load(edited(path, version=3))
    path.write_text(good)
    with pytest.raises(ap.ResultError, match="damaged: ValueError: unknown fields colour"):
        ap.Attribution.load(edited(path, colour="red"))
    path.write_text(good)
    with pytest.raises(ap.ResultError, match=r"shapes \(1,\) and \(3, 2\) do not fit"):
        ap.Attribution.load(edited(path, values=[1.0]))
    path.write_text(good)
    with pytest.raises(ap.ResultError, match='has no "schema"'):
        ap.Attribution.load(edited(path, schema="other"))
    path.write_text(good[: len(good) // 2])
    with pytest.raises(ap.ResultError, match="not valid JSON"):
        ap.Attribution.load(path)
    path.write_text(good, encoding="utf-16")
    with pytest.raises(ap.ResultError, match=r"r\.json is not UTF-8 text; it looks like UTF-16\. .*iconv -f UTF-16"):
        ap.Attribution.load(path)
    with pytest.raises(ap.ResultError, match="Cannot read .*No such file"):
        ap.Attribution.load(tmp_path / "none.json")
    broken = json.loads(good)
    del broken["values"]
    path.write_text(json.dumps(broken))
    with pytest.raises(ap.ResultError, match="damaged: KeyError: 'values'"):
        ap.Attribution.load(path)


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = result().save(tmp_path / "r.json")
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert ap.Attribution.load(path).to_dict() == result().to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("estimand", 5), ("base_value", "a"), ("base_value", True), ("values", ["1", "2"]), ("values", [1.0, True]),
        ("segments", [["a", 99]]), ("segments", [["a", -1]]), ("segments", [[5, 0]]), ("std_error", [-1.0, 1.0]),
        ("std_error", [1.0]), ("target_tokens", [1, 2, 3]), ("extras", []), ("features", []),
        ("features", [{"name": 5, "text": "", "members": [], "baseline": ""}] * 2), ("values", [1e999, 0.0]),
    ],
)  # fmt: skip
def test_fields_of_the_wrong_kind_are_refused(tmp_path: Path, field: str, value: object) -> None:
    path = edited(result().save(tmp_path / "r.json"), **{field: value})
    with pytest.raises(ap.ResultError, match=r"r\.json is damaged"):
        ap.Attribution.load(path)


def test_links_are_followed_and_devices_stay_devices(tmp_path: Path) -> None:
    real = result().save(tmp_path / "real.json")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    result(target_text="other").save(link)
    assert link.is_symlink()
    assert ap.Attribution.load(real).target_text == "other"
    if Path("/dev/null").is_char_device():
        result().save("/dev/null")
        assert Path("/dev/null").is_char_device()


def test_nothing_is_half_written(tmp_path: Path) -> None:
    path = result().save(tmp_path / "r.json")
    before = path.read_text()
    with pytest.raises(ap.ResultError, match="cannot be written as JSON.*extras .*oops"):
        result(extras={"oops": object()}).save(path)
    with pytest.raises(ap.ResultError, match="cannot be written as JSON"):
        result(extras={"oops": float("inf")}).save(path)
    assert path.read_text() == before
    with pytest.raises(ap.ResultError, match="Cannot write .*No such file"):
        result().save(tmp_path / "missing" / "r.json")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_tables() -> None:
    table = result().to_dataframe()
    assert list(table.columns) == ["feature", "text", "attribution", "std_error"]
    assert table["attribution"].tolist() == [1.5, -0.25]
    tokens = result(std_error=None, token_std_error=None).to_dataframe(per_token=True)
    assert len(tokens) == 6
    row = tokens[(tokens.position == 1) & (tokens.feature == "city + state")].iloc[0]
    assert (row.token, row.attribution, row.std_error) == (",", -0.5, 0)


def test_unknown_errors_are_not_zero() -> None:
    """Errors of one kind that are missing are unknown; only where there are none at all, values are exact."""
    half = result(token_std_error=None)
    assert half.to_dataframe()["std_error"].isna().tolist() == [False, True]
    assert half.to_dataframe("tokens")["std_error"].isna().all()
    exact = result(std_error=None, token_std_error=None)
    assert exact.to_dataframe("tokens")["std_error"].eq(0).all()


def test_tables_of_pairs_and_groups(explainer: ap.Explainer) -> None:
    pairs = explainer.attribute("a b c d", " x", method="interactions")
    table = pairs.to_dataframe("pairs")
    assert table[["feature", "other"]].iloc[[0, -1]].to_numpy().tolist() == [["a", "b"], ["c", "d"]]
    assert table["interaction"].tolist() == pairs.extras["interactions"][np.triu_indices(4, 1)].tolist()
    assert table["std_error"].eq(0).all()
    sampled = explainer.attribute("a b c d e f", " x", method="interactions", budget=40).to_dataframe("pairs")
    assert (sampled["std_error"] > 0).any()
    tree = explainer.attribute("a b. c d. e f.", " x", method="hierarchical", budget=20)
    groups = tree.to_dataframe("groups")
    assert [len(members) for members in groups["features"]] == [len(row["members"]) for row in tree.extras["tree"]]
    assert groups["attribution"].tolist() == [row["value"] for row in tree.extras["tree"]]
    with pytest.raises(ap.ResultError, match='has no table of pairs; they come with method="interactions"'):
        tree.to_dataframe("pairs")
    with pytest.raises(ap.UnknownNameError, match="No table of a result is called 'token'. Did you mean 'tokens'"):
        tree.to_dataframe("token")


def test_values_by_name() -> None:
    made = result()
    assert (made["name"], made["city + state"]) == (1.5, -0.25)
    assert ("name" in made, "city" in made) == (True, False)
    with pytest.raises(ap.UnknownNameError, match="No feature is called 'nmae'. Did you mean 'name'"):
        made["nmae"]
    with pytest.raises(ap.InputError, match="give a feature's name, or use result.values"):
        made[0]  # type: ignore[index]
    twice = result(features=(ap.Feature("a", "a"), ap.Feature("a", "a")))
    with pytest.raises(ap.InputError, match=r"2 features are called 'a'; use result.values\[i\] with i one of 0, 1"):
        twice["a"]


def test_tables_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ap.ApportionError, match="needs pandas.*pip install"):
        result().to_dataframe()


def test_views_are_named_and_checked() -> None:
    with pytest.raises(ap.UnknownNameError, match="No view is called 'heatmpa'. Did you mean 'heatmap'"):
        result().plot("heatmpa")
    with pytest.raises(ap.InputError, match="The view 'bar' has no option 'nonsense'"):
        result().plot("bar", nonsense=1)


def test_magnitudes_are_saved_and_never_negative(tmp_path: Path) -> None:
    made = result(values=np.array([1.5, 0.25]), token_values=np.full((3, 2), 0.5), signed=False)
    path = made.save(tmp_path / "r.json")
    assert ap.Attribution.load(path).signed is False
    data = json.loads(path.read_text())
    for change, message in (({"signed": 0}, "signed is 0"), ({"values": [1.0, -1.0]}, "magnitudes .* are negative")):
        path.write_text(json.dumps(data | change))
        with pytest.raises(ap.ResultError, match=message):
            ap.Attribution.load(path)
    del data["signed"], data["seal"]
    path.write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="changed"):
        assert ap.Attribution.load(path).signed is True


@pytest.mark.parametrize("signed", ["no", False])
def test_methods_whose_magnitudes_are_negative_are_named(signed: object) -> None:
    estimate = ap.Estimate(torch.tensor([[1.0], [-0.5]]), signed=signed)
    message = (
        "signed='no'; it must be True or False" if signed else "negative value -0.5; magnitudes are never negative"
    )
    with pytest.raises(ap.PluginError, match=message):
        check_estimate("mine", estimate, 2, 1)


class Weights:
    """Magnitudes in a unit of their own."""

    estimand, requires = "weight", frozenset[ap.Capability]()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        game.values(torch.ones(1, game.n_features, dtype=torch.bool))
        return ap.Estimate(torch.ones(game.n_features, game.n_outputs), unit="weight", signed=False)


def test_scores_keep_their_unit_beside_values_of_another(explainer: ap.Explainer) -> None:
    found = explainer.attribute("a b", " x", method=Weights())
    assert (found.signed, found.unit, found.score_unit) == (False, "weight", "nats")
    shown = dict(summary(found))
    assert shown["score"].endswith("nats") and "full prompt" in shown["score"]
    plain = explainer.attribute("a b", " x")
    assert (plain.signed, plain.unit, plain.score_unit, plain.provenance.score_unit) == (True, "nats", "nats", "")
