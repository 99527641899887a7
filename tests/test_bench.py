"""Benchmarks count right: trees against all prefixes, operations against a hand count. Nothing here asserts a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import apportion as ap
from apportion.benchmarking import measuring, texts
from apportion.benchmarking.floor import ModelShape, optimal_flops
from apportion.benchmarking.gemm import gemm_rate
from apportion.benchmarking.measuring import Measured, Stopwatch
from apportion.benchmarking.tree import prefix_tree
from apportion.benchmarking.watcher import Watcher
from apportion.benchmarking.works import WORKS, Work, work
from apportion.cli import main
from apportion.testing import tiny

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12)


def prefixes(rows: Sequence[Sequence[int]]) -> set[tuple[int, ...]]:
    """Every node of the tree, by all that leads to it."""
    return {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}


@given(ROWS, st.one_of(st.none(), st.integers(1, 8)))
def test_a_tree_has_a_node_for_each_prefix(rows: list[list[int]], window: int | None) -> None:
    tree = prefix_tree(rows)
    nodes = prefixes(rows)
    assert tree.nodes == len(nodes)
    assert tree.rows == len({tuple(row) for row in rows})
    assert tree.attended(window) == sum(min(len(node), window or len(node)) for node in nodes)


def test_the_order_and_repeats_do_not_matter() -> None:
    rows = [(1, 2, 3), (1, 2), (1, 4), (1, 2, 3), (2,)]
    assert {prefix_tree(order).nodes for order in itertools.permutations(rows)} == {5}


def test_operations_of_a_tiny_model_by_hand() -> None:
    shape = ModelShape.of(tiny.model("llama"))
    # A layer: queries and output 32 × 32, keys and values 32 × 16 (2 of 4 heads), three matrices 32 × 48.
    assert shape.body == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert shape.head == 260 * 32
    assert shape.attention == ((32, None), (32, None))
    tree = prefix_tree([(1, 2, 3), (1, 2, 4)])  # 4 tokens, which see 1 + 2 + 3 + 3
    assert optimal_flops(shape, tree, 2) == 2 * shape.body * 4 + 2 * (260 * 32) * 2 * 2 + 2 * (4 * 32) * 9


@pytest.mark.parametrize(
    ("family", "body"),
    [
        ("gpt2", 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128)),  # tied, and positions are no matrix product
        (
            "mixtral",
            2 * (2 * 32 * 32 + 2 * 32 * 16 + 4 * 32 + 2 * 3 * 32 * 48),
        ),  # two of four experts, a router
    ],
)
def test_what_a_token_passes(family: str, body: int) -> None:
    assert ModelShape.of(tiny.model(family)).body == body


def test_windows_are_counted_as_windows() -> None:
    assert ModelShape.of(tiny.model("gemma3")).attention == ((32, 4), (32, None))
    assert ModelShape.of(tiny.model("mamba")).attention == ()


def test_a_model_without_an_output_layer() -> None:
    with pytest.raises(ap.ModelError, match=r"Linear has no output layer .*causal language model"):
        ModelShape.of(torch.nn.Linear(2, 2))


def test_a_rate_is_a_rate() -> None:
    assert gemm_rate(shapes=[(4, 4, 4)], tries=1) > 0
    assert gemm_rate(onednn=True, shapes=[(4, 4, 4)], tries=1) > 0


def two_slots() -> ap.Template:
    return ap.Template("{a} and {b}", {"a": "x", "b": "yy"}, {"a": "z", "b": "w"})


@pytest.fixture
def quick_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large products in float64 on one thread would take seconds."""
    monkeypatch.setattr(measuring, "gemm_rate", lambda *_, **__: 1e9)


@pytest.fixture
def measured(quick_rate: None) -> tuple[Measured, ap.Attribution, Watcher]:
    watcher = Watcher()
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[watcher], progress=False)
    ticks: list[int] = []
    stopwatch = Stopwatch(explainer, watcher, Work("small", "two slots", two_slots, "ab"), tick=lambda: ticks.append(1))
    stopwatch.time(1)
    stopwatch.time(2)
    assert len(ticks) == 4
    return stopwatch.measured(), stopwatch.result, watcher


def test_what_a_run_asked_for_is_seen(measured: tuple[Measured, ap.Attribution, Watcher]) -> None:
    one, result, watcher = measured
    rows = ["x and yya", "x and wa", "z and yya", "z and wa"]  # a byte is a token; the last target token is not read
    assert one.least_tokens == len(prefixes([list(row.encode()) for row in rows]))
    assert one.evaluations == result.provenance.evaluations == 4
    assert one.forwarded_tokens == result.provenance.forwarded_tokens >= one.least_tokens
    assert not watcher.sequences, "nothing is kept while time is taken"


def test_what_is_measured_fits_together(measured: tuple[Measured, ap.Attribution, Watcher]) -> None:
    one, _, _ = measured
    assert len(one.seconds) == 3
    facts = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert facts["median_seconds"] == sorted(one.seconds)[1]
    assert facts["share_of_floor"] * facts["median_seconds"] == pytest.approx(one.least_flops / one.gemm_rate)
    assert facts["evaluations_per_second"] * facts["median_seconds"] == pytest.approx(4)
    assert 0 < facts["share_beside_scoring"] < 1


@pytest.mark.parametrize("name", WORKS)
def test_works_can_be_run(name: str, explainer: ap.Explainer) -> None:
    """As far as this needs no real model: its context of 512 bytes is too short for the long ones."""
    one = work(name)
    if len(str(one.prompt())) < 1000:
        assert len(one.run(explainer).values) > 4
    else:
        with pytest.raises(ap.InputError, match="context length"):
            one.run(explainer)


def test_the_texts_are_what_the_tables_say() -> None:
    assert texts.document().count(". ") + 1 == 60
    assert len(texts.VALUES_12) == len(texts.BASELINES_12) == 12
    assert len(texts.examples()) == 8
    assert len(texts.words(1000).split()) == 1000


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_rate: None
) -> None:
    saved = tmp_path / "speed.json"
    flags = ["--model", str(tiny_model_dir), "--case", "ablation", "--repeats", "2", "--dtype", "float64"]
    assert main(["bench", *flags, "--json", "--save", str(saved)]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report == json.loads(saved.read_text())
    assert printed.err == "", "a bar is for terminals"
    assert (report["backend"], report["dtype"]) == ("torch", "float64")
    assert {"threads", "versions", "device", "model"} <= set(report)
    (case,) = report["cases"]
    assert case["case"] == "ablation"
    assert len(case["seconds"]) == 2
    assert case["evaluations"] == 1 + len(texts.SENTENCE.encode())
    assert case["forwarded_tokens"] >= case["least_tokens"]
    assert main(["bench", *flags]) == 0
    out = capsys.readouterr().out
    assert f"{case['least_tokens']:,}" in out
    assert "of floor" in out


def test_a_case_that_fails_is_named_and_the_others_stay(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_rate: None
) -> None:
    saved = tmp_path / "speed.json"
    flags = ["--model", str(tiny_model_dir), "--case", "document", "--case", "ablation", "--repeats", "1"]
    assert main(["bench", *flags, "--save", str(saved)]) == 1
    printed = capsys.readouterr()
    assert "case document failed: " in printed.err
    assert "context length" in printed.err
    assert "ablation" in printed.out
    report = json.loads(saved.read_text())
    assert [case["case"] for case in report["cases"]] == ["ablation"]
    assert list(report["failed"]) == ["document"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--case", "shaply"], 1, "No case is called 'shaply'. Did you mean 'shapley'?"),
        (["--backend", "torhc"], 1, "Did you mean 'torch'?"),
        (["--case", "shapley", "--case", "shapley"], 2, "named twice"),
        (["--save", "speed.txt"], 2, "should end in .json"),
        (["--repeats", "0"], 2, "repeats"),
    ],
)
def test_mistakes_cost_no_model(
    flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "--model", "there/is/no/such/model", *flags]) == code
    assert message in capsys.readouterr().err
