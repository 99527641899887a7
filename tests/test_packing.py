"""Packed batches: every node attends along its own path, however rows are grouped and whatever was kept."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion as ap
from apportion.models.spec import model_spec
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.plan import plan
from apportion.scoring.prefix_tree import minimum_tokens, reused_tokens
from apportion.testing import reference, tiny
from apportion_backends import packing
from apportion_backends.packing import lay_out
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.packed_attention import Packing, PackTensors, merges_attention, packed_attention
from checked import WINDOWS_HAVE_MASKS

HEADS, GROUPS, SIZE = 4, 2, 8

short = st.lists(st.integers(0, 1), min_size=1, max_size=10).map(tuple)
pieces = st.sampled_from([(0,) * 9, (1,) * 5, (0, 1), (2,)])
long = st.lists(pieces, min_size=1, max_size=8).map(lambda parts: tuple(token for part in parts for token in part))
many_rows = st.lists(st.builds(Row, st.one_of(short, long), short), min_size=1, max_size=12, unique=True)


def states(beginning: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Query, key and value of the last token of a beginning: the same wherever it stands."""
    draw = torch.Generator().manual_seed(hash(beginning) % 2**31)
    shapes = {"query": (HEADS, SIZE), "key": (GROUPS, SIZE), "value": (GROUPS, SIZE)}
    return {name: torch.randn(*shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


def stacked(beginnings: list[tuple[int, ...]], name: str) -> torch.Tensor:
    return torch.stack([states(beginning)[name] for beginning in beginnings])


def by_hand(read: tuple[int, ...]) -> torch.Tensor:
    """Causal attention of a row by itself, ``[L, H, D]``."""
    beginnings = [read[: n + 1] for n in range(len(read))]
    query, key, value = (stacked(beginnings, name).transpose(0, 1) for name in ("query", "key", "value"))
    key, value = (part.repeat_interleave(HEADS // GROUPS, 0) for part in (key, value))
    scores = (query @ key.transpose(1, 2)) / SIZE**0.5
    hidden = ~torch.ones(len(read), len(read)).tril().bool()
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value).transpose(0, 1)


@settings(max_examples=60, deadline=None)
@given(rows=many_rows, kept=st.one_of(st.just(()), long), least=st.sampled_from([None, 1, 4, 32]))
@pytest.mark.parametrize(("overhead", "step", "piece"), [(0, 1, None), (50, 8, None), (10**6, 1, None), (0, 1, 3)])
def test_every_node_attends_along_its_path(
    overhead: int, step: int, piece: int | None, rows: list[Row], kept: tuple[int, ...], least: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "GROUP_OVERHEAD", overhead)
        rows = sorted(rows, key=lambda row: row.read)
        laid_out = lay_out(rows, kept, least_trunk=least, size=lambda n: -(-n // step) * step, piece=piece)
        pack = PackTensors.of(laid_out, torch.device("cpu"), torch.float64)
    of_node: dict[int, tuple[int, ...]] = {}
    for row, places in zip(rows, pack.predicts.tolist(), strict=True):
        for n, place in enumerate(places[: len(row.target)]):
            of_node[place] = row.read[: len(row.prompt) + n]
    depths = reused_tokens(rows, ModelInput(kept) if kept else None)
    nodes = [row.read[:n] for row, depth in zip(rows, depths, strict=True) for n in range(depth + 1, len(row.read) + 1)]
    assert all(nodes[place] == beginning for place, beginning in of_node.items()), "targets are read at other tokens"
    assert len(pack.ids) == len(pack.positions) == -(-len(nodes) // step) * step
    assert [beginning[-1] for beginning in nodes] == pack.ids.tolist()[: len(nodes)]
    assert [len(beginning) - 1 for beginning in nodes] == pack.positions.tolist()[: len(nodes)]
    filled = nodes + nodes[-1:] * (len(pack.ids) - len(nodes))
    query, key, value = (stacked(filled, name).transpose(0, 1)[None] for name in ("query", "key", "value"))
    old = [kept[: n + 1] for n in range(len(kept))]
    given_kept = {0: (stacked(old, "key"), stacked(old, "value"))} if kept else {}
    state = Packing(pack, given_kept)
    (found,) = packed_attention(query, key, value, 0, state).transpose(1, 2)
    expected = torch.stack([by_hand(beginning)[-1] for beginning in nodes])
    assert torch.allclose(found[: len(nodes)], expected, atol=1e-12)
    last = rows[-1].read
    assert torch.equal(state.found[0][0], stacked([last[: n + 1] for n in range(len(last))], "key")), "what is kept"


@pytest.mark.parametrize("masks", [True, False])
def test_many_rows_behind_a_long_beginning_attend_to_it_together(masks: bool) -> None:
    """One more row saves less than one more group costs; all of them save more."""
    rows = [Row((*range(400), 1000 + n, *range(149)), (5, 6)) for n in range(40)]
    first, others = lay_out(rows, masks=masks).groups
    assert (len(first.trunk), len(others.trunk)) == (0, 400)
    assert (len(first.paths), len(others.paths)) == (1, 39)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_this_pytorch_gives_the_sums_that_merging_needs(dtype: torch.dtype) -> None:
    assert merges_attention(torch.device("cpu"), dtype, 64)


def long_rows() -> list[Row]:
    """A long beginning, two long branches of it, and what differs late; the second target is longer."""
    draw = torch.Generator().manual_seed(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (count,), generator=draw).tolist())

    start, left, right = tokens(70), tokens(50), tokens(40)
    prompts = [start + branch + tokens(n) for branch in (left, right, ()) for n in (1, 3, 20)]
    return [Row(prompt, target) for target in (tokens(3), tokens(6)) for prompt in prompts]


@pytest.mark.parametrize("batch_tokens", [10**6, 100])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "gpt_neox", "mixtral"])
def test_long_rows_equal_single_ones(family: str, batch_tokens: int) -> None:
    session = TorchBackend().load(tiny.spec(family))
    rows = long_rows()
    layout = ap.Layout(padding=True, prefix_sharing=False, packing=True, batch_tokens=batch_tokens)
    made = plan(rows, layout, session.row_bytes, 10**9)
    assert made.batches[0].packed
    if batch_tokens > 1000:
        assert made.forwarded_tokens == minimum_tokens(rows)
    for batch in made.batches:
        found = session.log_probs(made.scoring_batch(batch))
        for i, ours in zip(batch.rows, found, strict=True):
            expected = reference.log_probs(tiny.model(family), rows[i].prompt, rows[i].target)
            assert torch.allclose(ours[: len(expected)].double(), expected, atol=1e-9, rtol=0)
    assert not session.info.notes, "nothing was read alone"
    assert session.kept == made.kept is not None
    session.release()
    assert session.kept is None


@pytest.mark.skipif(WINDOWS_HAVE_MASKS, reason="this transformers makes a mask for a window that hides nothing")
def test_rows_within_a_sliding_window_are_packed() -> None:
    config = tiny.config("gemma3")
    config.sliding_window = 64
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    assert (session.layout.packing, session.layout.packing_limit) == (True, 64)
    rows = [Row((*range(40), i), (7, 8, 9)) for i in range(4)]
    too_long = [Row((*range(80), i), (7, 8, 9)) for i in range(4)]
    for part, packed in ((rows, True), (too_long, False)):
        made = plan(part, session.layout, session.row_bytes, 10**9)
        assert {batch.packed for batch in made.batches} == {packed}
        found = session.log_probs(made.scoring_batch(made.batches[0]))
        for i, ours in zip(made.batches[0].rows, found, strict=True):
            expected = reference.log_probs(model, part[i].prompt, part[i].target)
            assert torch.allclose(ours.double(), expected, atol=1e-9, rtol=0)


def test_the_models_own_attention_is_put_back() -> None:
    loaded = tiny.spec()
    before = loaded.objects.config._attn_implementation
    session = TorchBackend().load(loaded)
    session.log_probs(ap.ScoringBatch.of([(1, 2, 3), (1, 2, 4)], (5,), packed=True))
    with pytest.raises(ap.ScoreError, match="failed on a prompt of 3 tokens and a target of 1 .*out of range"):
        session.log_probs(ap.ScoringBatch.of([(1, 2, 3), (1, 2, 10**6)], (5,), packed=True))
    assert loaded.objects.config._attn_implementation == before
    assert session.kept == ModelInput((1, 2, 4)), "a forward that failed changes nothing"


def test_weights_that_are_trained_or_exchanged_between_runs_are_seen() -> None:
    model = copy.deepcopy(tiny.model())
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    batch = ap.ScoringBatch.of([(1, 2, 3), (1, 2, 4)], (5, 6), packed=True)

    def check() -> None:
        session.release()
        found = session.log_probs(batch).double()
        for row, ours in zip(batch.rows, found, strict=True):
            assert torch.allclose(ours, reference.log_probs(model, row.prompt, row.target), atol=1e-9)

    check()
    with torch.no_grad():
        next(model.base_model.layers[0].mlp.parameters()).mul_(3)
    check()
    model.base_model.layers[1].mlp = copy.deepcopy(model.base_model.layers[0].mlp)
    check()
    model.base_model.layers[0].self_attn.q_proj.weight = torch.nn.Parameter(torch.randn(32, 32, dtype=torch.float64))
    check()
    model.base_model.layers[0].register_forward_hook(lambda module, args, output: output * 2)
    check()
