"""Fused kernels equal their references: on a GPU if there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is not installed")

from apportion_backends.triton import linear_logprob as head
from apportion_backends.triton.linear_logprob import linear_logprob, linear_logprob_reference
from apportion_backends.triton.runtime import interpreting
from apportion_backends.triton.shared_prefix_attention import (
    shared_prefix_attention,
    shared_prefix_attention_reference,
)
from apportion_backends.triton.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not interpreting(), reason="needs a CUDA device, or TRITON_INTERPRET=1 before Python starts"
)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SMALL = Tiles(16, 16, 16, 3, 4, 1)
"""Every loop has several steps, the last one incomplete."""


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def poisoned(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a view into memory that is NaN elsewhere, so that reads out of bounds show."""
    room = torch.full([size + 3 for size in tensor.shape], torch.nan, dtype=tensor.dtype, device=tensor.device)
    view = room[tuple(slice(1, size + 1) for size in tensor.shape)]
    view.copy_(tensor)
    return view


def targets(rows: int, vocabulary: int) -> torch.Tensor:
    ids = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(1))
    ids[-1] = vocabulary - 1
    return ids.to(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(1, 16, 17), (17, 65, 101), (33, 31, 211), (64, 64, 128)])
def test_log_probs(dtype: torch.dtype, rows: int, width: int, vocabulary: int) -> None:
    hidden, weight = poisoned(draw(rows, width, dtype=dtype)), poisoned(draw(vocabulary, width, dtype=dtype, seed=1))
    bias, target = draw(vocabulary, dtype=dtype, seed=2), targets(rows, vocabulary)
    for soft_cap in (None, 5.0):
        for offset in (None, bias):
            found = linear_logprob(hidden, weight, target, offset, soft_cap=soft_cap, tiles=SMALL)
            exact = None if offset is None else offset.double()
            wanted = linear_logprob_reference(hidden.double(), weight.double(), target, exact, soft_cap=soft_cap)
            assert found.dtype == torch.float32
            assert torch.allclose(found.double(), wanted, atol=1e-4, rtol=0), (soft_cap, offset is None)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 40), vocabulary=st.integers(1, 90), slices=st.integers(1, 9), seed=st.integers(0, 9))
def test_the_cut_changes_nothing(rows: int, vocabulary: int, slices: int, seed: int) -> None:
    """More slices than tiles too; results are bitwise reproducible."""
    hidden, weight, target = draw(rows, 20, seed=seed), draw(vocabulary, 20, seed=seed + 1), targets(rows, vocabulary)
    tiles = dataclasses.replace(SMALL, slices=slices)
    found = linear_logprob(hidden, weight, target, tiles=tiles)
    assert torch.equal(found, linear_logprob(hidden, weight, target, tiles=tiles))
    wanted = linear_logprob_reference(hidden.double(), weight.double(), target)
    assert torch.allclose(found.double(), wanted, atol=1e-5)


def test_large_logits_stay_finite() -> None:
    hidden, weight = draw(3, 16) * 200, draw(40, 16, seed=1)
    target = targets(3, 40)
    found, wanted = (f(hidden, weight, target) for f in (linear_logprob, linear_logprob_reference))
    assert torch.allclose(found, wanted, rtol=1e-5)


def test_nan_and_infinity_are_not_hidden() -> None:
    hidden, weight, target = draw(4, 16), draw(40, 16, seed=1), targets(4, 40)
    hidden[1], hidden[2, 3] = torch.nan, torch.inf
    found = linear_logprob(hidden, weight, target, tiles=SMALL)
    assert found.isfinite().tolist() == [True, False, False, True]
    assert found.isnan()[1:3].all()


@pytest.mark.parametrize("closed", [slice(0, 64), slice(30, 64), slice(1, 99), slice(64, 100)])
def test_tokens_of_probability_zero(closed: slice) -> None:
    """Whole tiles and whole slices of them, at either end."""
    hidden, weight, bias = draw(3, 16), draw(100, 16, seed=1), torch.zeros(100, device=DEVICE)
    bias[closed] = -torch.inf
    target = torch.tensor([0, 40, 99], device=DEVICE)
    found, wanted = (f(hidden, weight, target, bias) for f in (linear_logprob, linear_logprob_reference))
    for ours in (found, linear_logprob(hidden, weight, target, bias, tiles=SMALL)):
        assert torch.allclose(ours, wanted, atol=1e-5)


def test_vectors_need_not_be_contiguous() -> None:
    hidden, weight, bias = draw(3, 16), draw(40, 16, seed=1), draw(80, seed=2)[::2]
    pairs = torch.tensor([[1, 9], [2, 9], [3, 9]], device=DEVICE)
    for target in (pairs[:, 0], pairs[:1, 1].expand(3)):
        found, wanted = (f(hidden, weight, target, bias) for f in (linear_logprob, linear_logprob_reference))
        assert torch.allclose(found, wanted, atol=1e-5)
        states = draw(3, 2, 4, 16), draw(3, 1, 4, 16), draw(3, 1, 4, 16), draw(1, 9, 16), draw(1, 9, 16)
        near = [f(*states, target) for f in (shared_prefix_attention, shared_prefix_attention_reference)]
        assert torch.allclose(*near, atol=1e-5)


def test_nothing_to_score() -> None:
    assert linear_logprob(draw(0, 16), draw(40, 16), targets(1, 40)[:0]).shape == (0,)


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gradients_reach_the_hidden_states(dtype: torch.dtype, soft_cap: float | None) -> None:
    """The reference by finite differences in fp64, the kernel by the reference."""
    hidden, weight, bias = draw(5, 18), draw(53, 18, seed=1), draw(53, seed=2)
    target = targets(5, 53)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return linear_logprob_reference(x, weight.double(), target, bias.double(), soft_cap=soft_cap)

    assert torch.autograd.gradcheck(exact, (hidden.double().requires_grad_(),))
    upstream = draw(5, seed=3)
    x, y = (hidden.to(dtype).to(kind, copy=True).requires_grad_() for kind in (dtype, torch.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "SLOPES_BYTES", 4 * 5 * 16)  # several slices, the last one incomplete
        ours = linear_logprob(x, weight.to(dtype), target, bias.to(dtype), tiles=SMALL, soft_cap=soft_cap)
        ours.backward(upstream)
    (exact(y) * upstream.double()).sum().backward()
    assert x.grad is not None and y.grad is not None
    assert torch.allclose(x.grad.double(), y.grad, atol=1e-5 if dtype == torch.float32 else 2e-2)


def test_gradients_that_would_be_wrong_are_refused() -> None:
    weight, target = draw(53, 18, seed=1), targets(5, 53)
    hidden = draw(5, 18).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(linear_logprob(hidden, weight, target).sum(), hidden, create_graph=True)
    scored = linear_logprob(hidden, weight, target).sum()
    weight.mul_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scored.backward()
    query = draw(1, 2, 4, 16).requires_grad_()
    with pytest.raises(ValueError, match="has no gradient"):
        shared_prefix_attention(query, draw(1, 1, 4, 16), draw(1, 1, 4, 16), draw(1, 9, 16), draw(1, 9, 16))


def test_small_upstream_gradients_keep_their_precision_in_half() -> None:
    hidden, weight, target = draw(5, 18), draw(53, 18, seed=1), targets(5, 53)
    found = []
    for scale in (1.0, 1e-4):
        x = hidden.half().requires_grad_()
        linear_logprob(x, weight.half(), target).mul(scale).sum().backward()
        assert x.grad is not None
        found.append(x.grad.double() / scale)
    assert torch.allclose(*found, rtol=2e-2, atol=6e-4)  # fp16 ends at 6e-8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_cap": -1.0}, "soft_cap=-1.0 must be above 0"),
        ({"target": torch.zeros(4)}, "target must be int64 or int32"),
        ({"weight": torch.zeros(0, 8)}, "weight must not be empty"),
        ({"target": torch.zeros(3, dtype=torch.long)}, r"hidden must be \[R, D\]"),
        ({"weight": torch.zeros(50, 8, dtype=torch.float64)}, "must have one dtype"),
        ({"bias": torch.zeros(3)}, r"bias must be \[V\] = \[50\]"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    fitting = {"hidden": draw(4, 8), "weight": draw(50, 8), "target": targets(4, 50), "bias": None}
    moved = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        linear_logprob(**(fitting | moved))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "heads", "groups", "suffix", "prefix", "channels"),
    [(1, 1, 1, 1, 1, 16), (3, 9, 3, 17, 37, 64), (2, 4, 2, 70, 5, 65), (2, 2, 1, 3, 100, 128), (2, 3, 3, 5, 0, 32)],
)
def test_attention_to_a_shared_prefix(
    dtype: torch.dtype, rows: int, heads: int, groups: int, suffix: int, prefix: int, channels: int
) -> None:
    """Grouped heads, odd sizes, no prefix, and prefixes of different lengths, against the reference in fp64."""
    query = poisoned(draw(rows, heads, suffix, channels, dtype=dtype))
    own = [poisoned(draw(rows, groups, suffix, channels, dtype=dtype, seed=seed)) for seed in (1, 2)]
    common = [poisoned(draw(groups, prefix, channels, dtype=dtype, seed=seed)) for seed in (3, 4)]
    some = torch.tensor([(5 * n) % (prefix + 1) for n in range(rows)], dtype=torch.int32, device=DEVICE)
    for lengths in (None, some):
        found = shared_prefix_attention(query, *own, *common, lengths)
        exact = [part.double() for part in (query, *own, *common)]
        wanted = shared_prefix_attention_reference(*exact, lengths)  # type: ignore[arg-type]
        assert found.dtype == dtype
        tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        assert torch.allclose(found.double(), wanted, atol=tolerance)


def test_attention_without_suffix_is_empty() -> None:
    nothing, common = draw(2, 4, 0, 16), draw(2, 7, 16)
    assert shared_prefix_attention(nothing, nothing[:, :2], nothing[:, :2], common, common).shape == (2, 4, 0, 16)


def test_attention_refuses_bad_arguments() -> None:
    query, own, common = draw(2, 4, 3, 16), draw(2, 2, 3, 16), draw(2, 7, 16)
    with pytest.raises(ValueError, match="H a multiple of G"):
        shared_prefix_attention(query[:, :3], own, own, common, common)
    with pytest.raises(ValueError, match=r"prefix_lengths must be int64 or int32 \[B\] = \[2\]"):
        shared_prefix_attention(query, own, own, common, common, torch.zeros(3, dtype=torch.int32, device=DEVICE))
    large = [draw(1, 1, 1, 300), draw(1, 1, 1, 300), draw(1, 1, 1, 300), draw(1, 2, 300), draw(1, 2, 300)]
    with pytest.raises(ValueError, match="Heads of 300 channels are too large"):
        shared_prefix_attention(*large)
