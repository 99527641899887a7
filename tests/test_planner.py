"""Plans: every row once, prefixes shared where it pays, batches within their budget."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.backend import Layout
from apportion.planner import Plan, common_prefix, plan

ids = st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple)


def row_bytes(prefix: int, suffix: int, targets: int) -> int:
    return suffix + targets


def planned(sequences: Sequence[tuple[int, ...]], budget: int = 10**9, **layout: object) -> Plan:
    settings = {"padding": True, "prefix_sharing": True, "batch_tokens": 10**9, "min_prefix": 1} | layout
    return plan(sequences, (7, 8), Layout(**settings), row_bytes, budget)


@given(st.lists(ids, min_size=1, max_size=30, unique=True), st.booleans(), st.integers(1, 60))
def test_every_row_is_planned_once_within_the_budget(
    sequences: list[tuple[int, ...]], padding: bool, budget: int
) -> None:
    made = planned(sequences, budget, padding=padding)
    assert sorted(row for batch in made.batches for row in batch) == list(range(len(sequences)))
    for rows in made.batches:
        batch = made.batch(rows)
        assert batch.suffix_lengths.min() >= 1
        for i, row in enumerate(rows):
            length = int(batch.suffix_lengths[i])
            assert (*batch.prefix_ids.tolist(), *batch.suffix_ids[i, :length].tolist()) == sequences[row]
        widest = max(len(sequences[row]) for row in rows) - made.prefix + 2
        assert len(rows) == 1 or len(rows) * widest <= budget
        if not padding:
            assert len({len(sequences[row]) for row in rows}) == 1


def test_the_common_prefix_leaves_a_token_to_every_row() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 4)]) == 2
    assert common_prefix([(1, 2), (1, 2, 4)]) == 1
    assert common_prefix([(1,), (1, 2)]) == 0
    assert common_prefix([(2, 1), (1, 1)]) == 0
    assert common_prefix([(1, 2, 3)]) == 2
    assert common_prefix([]) == 0


@pytest.mark.parametrize(
    ("layout", "prefix"),
    [({}, 5), ({"min_prefix": 6}, 0), ({"min_prefix": 5}, 5), ({"prefix_sharing": False}, 0)],
)
def test_prefixes_are_shared_where_it_pays(layout: dict[str, object], prefix: int) -> None:
    sequences = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7, 8)]
    made = planned(sequences, **layout)
    assert made.prefix == prefix
    # Two rows padded to 7 tokens, and one of the two target tokens is read.
    assert made.forwarded_tokens == prefix + 2 * (7 - prefix + 1)


def test_one_row_shares_nothing() -> None:
    assert planned([(1, 2, 3)]).prefix == 0


def test_batches_hold_what_the_device_can_use() -> None:
    draw = random.Random(0)
    sequences = [tuple(draw.choices(range(1000), k=18)) for _ in range(100)]
    made = planned(sequences, batch_tokens=200)
    assert [len(batch) for batch in made.batches] == [10] * 10
    assert planned(sequences, batch_tokens=1).batches == tuple((i,) for i in range(100))


def test_halves_carry_only_their_padding() -> None:
    made = planned([(1, 2, 3, 4, 5), (2, 3, 4, 5, 6), (3, 4), (4, 5)])
    first, second = made.batch(made.batches[0]).split()
    assert (first.n_rows, second.n_rows) == (2, 2)
    assert second.suffix_ids.tolist() == [[3, 4], [4, 5]]
