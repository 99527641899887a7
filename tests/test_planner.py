"""Plans: every row once, what rows share read once where it pays, batches within their budget."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.protocols.backend import Layout
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.plan import Plan, plan
from apportion.scoring.prefix_tree import common_prefix, minimum_tokens

ids = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
targets = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)
many_rows = st.lists(st.builds(Row, ids, targets), min_size=1, max_size=30, unique=True)

LAYOUTS = ("plain", "grouped", "packed")


def row_bytes(prefix: int, suffix: int, targets: int) -> int:
    return suffix + targets


def planned(
    prompts: Sequence[tuple[int, ...] | Row],
    way: str = "grouped",
    budget: int = 10**9,
    kept: tuple[int, ...] = (),
    **layout: object,
) -> Plan:
    settings = {
        "padding": True, "prefix_sharing": way == "grouped", "packing": way == "packed", "batch_tokens": 10**9,
        "batch_overhead": 0,
    } | layout  # fmt: skip
    rows = [prompt if isinstance(prompt, Row) else Row(prompt, (7, 8)) for prompt in prompts]
    return plan(rows, Layout(**settings), row_bytes, budget, ModelInput(kept) if kept else None)


def distinct_beginnings(made: Plan) -> int:
    """What a prefix tree reads, by brute force."""
    return len({row.read[:n] for row in made.rows for n in range(1, len(row.read) + 1)})


def read_by_hand(made: Plan, kept: tuple[int, ...] = ()) -> int:
    """Tokens read by a session that does what it is told, one token after the other."""
    total = 0
    for batch in made.batches:
        rows = [made.rows[i] for i in batch.rows]
        if batch.packed:
            # Each token once; kept ones not at all, unless a row's first target token is predicted from there.
            known = {kept[:n] for n in range(1, len(kept) + 1)}
            first = rows[0].read
            usable = max((n for n in range(len(rows[0].prompt)) if first[:n] in known or n == 0), default=0)
            nodes: set[tuple[int, ...]] = set()
            for row in rows:
                usable = min(usable, common_prefix(first[:usable], row.read), len(row.prompt) - 1)
                nodes |= {row.read[:n] for n in range(1, len(row.read) + 1)}
            total += len({node for node in nodes if len(node) > usable or node not in known})
            kept = rows[-1].read
            continue
        prefix = rows[0].prompt[: batch.prefix]
        assert all(row.prompt[: batch.prefix] == prefix for row in rows)
        while prefix[: len(kept)] != kept and kept[: len(prefix)] != prefix:
            kept = kept[:-1]
        if len(kept) < len(prefix):
            total += len(prefix) - len(kept)
            kept = prefix
        total += len(rows) * (max(len(row.read) for row in rows) - batch.prefix)
    return total


@pytest.mark.parametrize("way", LAYOUTS)
@given(rows=many_rows, padding=st.booleans(), budget=st.integers(1, 60), overhead=st.integers(0, 20))
def test_every_row_is_planned_once_within_the_budget(
    way: str, rows: list[Row], padding: bool, budget: int, overhead: int
) -> None:
    made = planned(rows, way, budget, padding=padding, batch_overhead=overhead)
    assert sorted(row for batch in made.batches for row in batch.rows) == list(range(len(rows)))
    for batch in made.batches:
        given = made.scoring_batch(batch)
        assert given.rows == tuple(rows[i] for i in batch.rows)
        assert given.padded().suffix_lengths.min() >= 1
        assert len(batch.rows) == 1 or made.bytes(batch, row_bytes) <= budget + 3 * batch.packed
        if not padding and not batch.packed:
            assert len({(len(rows[i].prompt), len(rows[i].target)) for i in batch.rows}) == 1


@pytest.mark.parametrize("way", LAYOUTS)
@given(rows=many_rows, overhead=st.integers(0, 20), batch_tokens=st.sampled_from([1, 20, 10**9]))
def test_costs_are_what_a_session_reads(way: str, rows: list[Row], overhead: int, batch_tokens: int) -> None:
    made = planned(rows, way, batch_overhead=overhead, batch_tokens=batch_tokens)
    whole = planned(rows, "plain", batch_tokens=batch_tokens)
    assert minimum_tokens(rows) == distinct_beginnings(made)
    assert made.forwarded_tokens >= minimum_tokens(rows)
    assert made.ways[0].price <= min(way.price for way in made.ways)
    assert made.forwarded_tokens == sum(made.costs) == made.ways[0].tokens
    assert whole.forwarded_tokens == sum(len(b.rows) * max(len(rows[i].read) for i in b.rows) for b in whole.batches)
    if len(made.batches) == 1 or way != "packed":
        assert made.forwarded_tokens == read_by_hand(made)
    if made.batches[0].packed and len(made.batches) == 1:
        assert made.forwarded_tokens == minimum_tokens(rows), "one packed batch reads the prefix tree"


@given(
    rows=st.lists(st.builds(Row, ids, st.just((7, 8, 9))), min_size=1, max_size=30, unique=True),
    batch_tokens=st.integers(1, 30),
)
def test_packed_batches_go_on_from_one_another(rows: list[Row], batch_tokens: int) -> None:
    """However small the batches, only what predicts a first target token is read again, and the target after it."""
    made = planned(rows, "packed", batch_tokens=batch_tokens)
    if made.batches[0].packed:
        assert made.forwarded_tokens <= minimum_tokens(rows) + 3 * (len(made.batches) - 1)
    later = planned(rows, "packed", kept=(*rows[0].prompt, 9))
    assert later.forwarded_tokens <= planned(rows, "packed").forwarded_tokens


def test_what_shares_nothing_is_not_packed() -> None:
    """The cost model, in words."""
    apart = [(i, 1, 2, 3) for i in range(10)]
    alike = [(1, 2, 3, i) for i in range(10)]
    for prompts, name in ((apart, "plain"), (alike, "packed")):
        made = planned(prompts, "packed", packing_overhead=0.03)
        assert made.ways[0].name == name
        assert {batch.packed for batch in made.batches} == {name == "packed"}
    assert made.reason == "packed: 23 tokens in 1 forward pass (instead of plain 50 tokens in 1 forward pass)"


def test_leave_one_out_reuses_the_prompt_before_each_position() -> None:
    """64 rows of 65 tokens, each with another token replaced; the tree needs half of the tokens."""
    prompt = tuple(range(1, 65))
    rows = [prompt, *((*prompt[:i], 0, *prompt[i + 1 :]) for i in range(64))]
    whole = planned(rows, "plain").forwarded_tokens
    assert whole == 65 * 65
    packed = planned(rows, "packed", batch_tokens=256)
    assert packed.forwarded_tokens <= minimum_tokens(packed.rows) + len(packed.batches)
    assert planned(rows, batch_overhead=16).forwarded_tokens <= 1.15 * minimum_tokens(
        [Row(row, (7, 8)) for row in rows]
    )
    assert planned(rows, batch_overhead=100).forwarded_tokens <= 0.65 * whole
    assert planned(rows, batch_overhead=10**6).forwarded_tokens == whole


def test_a_prefix_is_shared_where_it_saves_more_than_a_batch_costs() -> None:
    sequences = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7, 8)]
    for overhead, prefix in ((0, 5), (4, 5), (5, 0)):
        made = planned(sequences, batch_overhead=overhead)
        assert {batch.prefix for batch in made.batches} == {prefix}
        # Two rows padded to 7 tokens, and one of the two target tokens is read.
        assert made.forwarded_tokens == prefix + 2 * (7 - prefix + 1)
    assert planned(sequences, "plain").batches[0].prefix == 0
    assert planned([(1, 2, 3)]).batches[0].prefix == 0


def test_few_rows_may_share_a_batch_behind_a_prefix() -> None:
    """A model may read one row at a time there; then sharing has to pay for as many forward passes."""
    sequences = [(*range(40), last) for last in range(50, 58)]
    for overhead, size, prefix in ((4, 1, 40), (4, 3, 40), (60, 1, 0), (60, 8, 40)):
        made = planned(sequences, batch_overhead=overhead, prefix_rows=size)
        assert {batch.prefix for batch in made.batches} == {prefix}
        assert max(len(batch.rows) for batch in made.batches) == (size if prefix else 8)


def test_a_row_that_begins_another_keeps_its_last_token() -> None:
    made = planned([(1, 2), (1, 2, 4), (1, 2, 4, 5)])
    assert all(len(made.rows[r].prompt) > b.prefix for b in made.batches for r in b.rows)


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
    assert len({batch.prefix for batch in planned(rows, batch_overhead=48).batches}) <= 64
