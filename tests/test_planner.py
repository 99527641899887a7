"""Plans: every row once, prefixes shared where it pays, batches within their budget."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from apportion.backend import Layout
from apportion.planner import Plan, plan

ids = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)


def row_bytes(prefix: int, suffix: int, targets: int) -> int:
    return suffix + targets


def planned(sequences: Sequence[tuple[int, ...]], budget: int = 10**9, **layout: object) -> Plan:
    settings = {"padding": True, "prefix_sharing": True, "batch_tokens": 10**9, "batch_overhead": 0} | layout
    return plan(sequences, ((7, 8),), Layout(**settings), row_bytes, budget)


def least_tokens(sequences: Sequence[tuple[int, ...]]) -> int:
    """Distinct beginnings: what a prefix tree reads, and the first of two target tokens in every row."""
    beginnings = {row[:n] for row in sequences for n in range(1, len(row))}
    return len(beginnings) + 2 * len(sequences)


@given(st.lists(ids, min_size=1, max_size=30, unique=True), st.booleans(), st.integers(1, 60), st.integers(0, 20))
def test_every_row_is_planned_once_within_the_budget(
    sequences: list[tuple[int, ...]], padding: bool, budget: int, overhead: int
) -> None:
    made = planned(sequences, budget, padding=padding, batch_overhead=overhead)
    assert sorted(row for batch in made.batches for row in batch.rows) == list(range(len(sequences)))
    for batch in made.batches:
        tensors = made.tensors(batch)
        assert tensors.suffix_lengths.min() >= 1
        for i, row in enumerate(batch.rows):
            length = int(tensors.suffix_lengths[i])
            assert (*tensors.prefix_ids.tolist(), *tensors.suffix_ids[i, :length].tolist()) == sequences[row]
        widest = max(len(sequences[row]) for row in batch.rows) - batch.prefix + 2
        assert len(batch.rows) == 1 or len(batch.rows) * widest <= budget
        if not padding:
            assert len({len(sequences[row]) for row in batch.rows}) == 1


def forwarded_by_hand(made: Plan) -> int:
    """Tokens read by a session that keeps the longest prefix so far."""
    known: tuple[int, ...] = ()
    total = 0
    for group in made.groups:
        prefix = made.sequences[group.batches[0].rows[0]][: group.prefix]
        assert all(made.sequences[r][: group.prefix] == prefix for batch in group.batches for r in batch.rows)
        while prefix[: len(known)] != known and known[: len(prefix)] != prefix:
            known = known[:-1]
        if len(known) < len(prefix):
            total += len(prefix) - len(known)
            known = prefix
        for batch in group.batches:
            longest = max(len(made.sequences[r]) for r in batch.rows)
            total += len(batch.rows) * (longest - group.prefix + 1)
    return total


@given(st.lists(ids, min_size=1, max_size=30, unique=True), st.integers(0, 20))
def test_forwarded_tokens_are_those_of_a_session(sequences: list[tuple[int, ...]], overhead: int) -> None:
    made = planned(sequences, padding=False, batch_overhead=overhead)
    assert made.forwarded_tokens == forwarded_by_hand(made)
    whole = planned(sequences, padding=False, prefix_sharing=False)
    assert least_tokens(sequences) <= made.forwarded_tokens <= whole.forwarded_tokens


def test_leave_one_out_reuses_the_prompt_before_each_position() -> None:
    """64 rows of 65 tokens, each with another token replaced; the tree needs half of the tokens."""
    prompt = tuple(range(1, 65))
    rows = [prompt, *((*prompt[:i], 0, *prompt[i + 1 :]) for i in range(64))]
    whole = planned(rows, prefix_sharing=False).forwarded_tokens
    assert whole == 65 * 65
    assert planned(rows, batch_overhead=16).forwarded_tokens <= 1.15 * least_tokens(rows)
    assert planned(rows, batch_overhead=100).forwarded_tokens <= 0.65 * whole
    assert planned(rows, batch_overhead=10**6).forwarded_tokens == whole


def test_a_prefix_is_shared_where_it_saves_more_than_a_batch_costs() -> None:
    sequences = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7, 8)]
    for overhead, prefix in ((0, 5), (4, 5), (5, 0)):
        made = planned(sequences, batch_overhead=overhead)
        assert [group.prefix for group in made.groups] == [prefix]
        # Two rows padded to 7 tokens, and one of the two target tokens is read.
        assert made.forwarded_tokens == prefix + 2 * (7 - prefix + 1)
    assert planned(sequences, prefix_sharing=False).groups[0].prefix == 0
    assert planned([(1, 2, 3)]).groups[0].prefix == 0


def test_a_row_that_begins_another_keeps_its_last_token() -> None:
    made = planned([(1, 2), (1, 2, 4), (1, 2, 4, 5)])
    assert all(len(made.sequences[r]) > b.prefix for b in made.batches for r in b.rows)


def test_batches_hold_what_the_device_can_use() -> None:
    draw = random.Random(0)
    sequences = [tuple(draw.choices(range(1000), k=18)) for _ in range(100)]
    made = planned(sequences, batch_tokens=200, batch_overhead=50)
    assert [len(batch.rows) for batch in made.batches] == [10] * 10
    assert [len(b.rows) for b in planned(sequences, batch_tokens=1, batch_overhead=50).batches] == [1] * 100


def test_planning_many_rows_is_quick_enough_to_forget() -> None:
    """Work is counted, not timed: groups are few, and each costs one pass over the rows that are left."""
    prompt = tuple(range(1, 513))
    rows = [(*prompt[:i], 0, *prompt[i + 1 :]) for i in range(512)]
    assert len(planned(rows, batch_overhead=48).groups) <= 64
