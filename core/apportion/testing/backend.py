"""What every backend keeps: the numbers of one-row-at-a-time scoring, however its batches are laid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BackendError
from apportion.hooks.object_check import object_faults
from apportion.models.load import DTYPES
from apportion.prompts import Text
from apportion.protocols.backend import (
    Available,
    Backend,
    BackendInfo,
    Capability,
    GenerateSession,
    LogitsSession,
    ScoringBatch,
    Session,
    Unavailable,
    WhiteBox,
    WhiteBoxSession,
)
from apportion.testing import reference, tiny
from apportion.testing.contract import Contract
from apportion.testing.explainers import tiny_explainer
from apportion.testing.randomness import only_its_own_generator

__all__ = ["BackendContract"]

TARGET = (40, 41, 42)
LENGTHS = (1, 3, 9, 9, 30, 2, 17)
"""Of the prompts' own parts: seven rows, two of them alike in length."""

Rows = Sequence[tuple[int, ...]]


class BackendContract(Contract):
    """Subclass it, give a fixture ``backend``, and name the models and precisions that it is for.

    Where the backend is unavailable, or a session lacks a capability, the checks skip and say why. The reference is
    the model's own forward: one prompt at a time, whole, uncached, log-probabilities reduced in float64.

    Attributes:
        families: architectures of ``apportion.testing.tiny`` that it is checked with.
        dtypes: of the weights.
        tolerances: the largest difference from the reference in nats, by dtype.
        device: where it runs; ``None`` for its own choice.
    """

    families: ClassVar[Sequence[str]] = ("llama", "gpt2", "qwen3")
    dtypes: ClassVar[Sequence[str]] = ("float32",)
    tolerances: ClassVar[Mapping[str, float]] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.2, "float16": 0.03}
    device: ClassVar[str | None] = None

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend to check; yours."""
        raise NotImplementedError("Give a fixture `backend` that returns your backend.")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One run of a check for each family and dtype that it asks for."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.dtypes)

    def tolerance(self, family: str, dtype: str) -> float:
        """The largest difference allowed; override it for models that compute parts in less than their dtype."""
        return self.tolerances[dtype]

    @contextmanager
    def session(self, backend: Backend, family: str = "", dtype: str = "") -> Iterator[Session]:
        """A session of a tiny model, by default of the first family and dtype."""
        state = backend.availability()
        if isinstance(state, Unavailable):
            pytest.skip(f"{backend.info.name} is unavailable: {state.reason}")
        loaded = tiny.loaded(family or self.families[0], DTYPES[dtype or self.dtypes[0]])
        session = backend.load(loaded, device=self.device, dtype=None, memory_budget=None)
        try:
            yield session
        finally:
            session.close()

    def check(
        self, session: Session, rows: Rows, prefix: int, family: str, dtype: str, target: Rows | None = None
    ) -> None:
        """Compare every row with the reference."""
        model = tiny.model(family, DTYPES[dtype])
        for ids in target or (TARGET,):
            found = scored(session, rows, prefix, ids)
            for row, ours in zip(rows, found, strict=True):
                expected = reference.log_probs(model, row, ids)
                worst = float((ours.double() - expected).abs().max())
                assert worst <= self.tolerance(family, dtype), (
                    f"A prompt of {len(row)} tokens ({prefix} shared) and {len(ids)} target tokens is off by "
                    f"{worst:.3g} nats on {family} in {dtype}: {ours.tolist()}, expected {expected.tolist()}."
                )

    def test_it_says_what_it_is(self, backend: Backend) -> None:
        """Name, devices, capabilities; signatures and docstring."""
        faults = object_faults("backends", backend)
        assert not faults, f"{type(backend).__name__} {' '.join(faults)}"
        info = backend.info
        assert isinstance(info, BackendInfo)
        assert info.name, "The backend has no name."
        assert info.devices, "It names no device."
        assert info.summary, "It has no summary for listings."
        assert Capability.LOG_PROBS in info.capabilities, "Every backend gives log-probabilities."

    def test_it_says_whether_it_works_here(self, backend: Backend) -> None:
        """``availability`` answers and never raises; a reason that something is missing says what to do."""
        state = backend.availability()
        assert isinstance(state, Available | Unavailable), f"availability() returned {state!r}."
        if isinstance(state, Unavailable):
            assert state.reason, "It is unavailable and does not say why."
            assert state.hint, f"It is unavailable ({state.reason}) and does not say what to do about it."

    def test_a_session_says_what_it_is(self, backend: Backend) -> None:
        """Its protocol, its capabilities, and a layout that can be planned for."""
        with self.session(backend) as session:
            assert isinstance(session, Session), f"{type(session).__name__} lacks a part of the Session protocol."
            assert session.info.backend == backend.info.name
            assert session.capabilities <= backend.info.capabilities, "It can do more than its backend says."
            assert session.layout.batch_tokens >= 1
            assert session.layout.prefix_sharing == (Capability.PREFIX_CACHE in session.capabilities)
            protocols = {
                Capability.LOGITS: LogitsSession,
                Capability.GENERATE: GenerateSession,
                Capability.GRADIENTS: WhiteBoxSession,
            }
            for capability, protocol in protocols.items():
                if capability in session.capabilities:
                    assert isinstance(session, protocol), f"It has {capability.value} and is no {protocol.__name__}."
            small, large = (session.row_bytes(0, suffix, 3) for suffix in (10, 100))
            assert 0 < small < large, "row_bytes() must be positive and grow with the length of a row."

    def test_batches_equal_the_reference(self, backend: Backend, family: str, dtype: str) -> None:
        """Rows of different lengths, whole and with shared prefixes of several lengths, one target token and three."""
        with self.session(backend, family, dtype) as session:
            for prefix in (0, 1, 20):
                self.check(session, rows_of(prefix), prefix, family, dtype, [TARGET, TARGET[:1]])

    def test_sharing_changes_nothing(self, backend: Backend, dtype: str) -> None:
        """The same rows with and without a shared prefix; prefixes that extend, shorten and change one another."""
        family = self.families[0]
        with self.session(backend, dtype=dtype) as session:
            if not session.layout.prefix_sharing:
                pytest.skip("it does not share prefixes for this model")
            rows = rows_of(20)
            for prefix in (20, 5, 12, 0, 20):
                self.check(session, rows, prefix, family, dtype)
            other = [tuple(255 - i for i in row) for row in rows]
            self.check(session, other, 20, family, dtype)
            session.release()
            self.check(session, rows, 20, family, dtype)

    def test_odd_shapes(self, backend: Backend, dtype: str) -> None:
        """One row, prompts of a single token, a prime number of rows, rows as long as the prefix and one."""
        family = self.families[0]
        with self.session(backend, dtype=dtype) as session:
            self.check(session, [(7,)], 0, family, dtype, [TARGET, (1,)])
            self.check(session, [(i,) for i in range(13)], 0, family, dtype)
            self.check(session, rows_of(0)[:1], 0, family, dtype)
            if session.layout.prefix_sharing:
                self.check(session, [(1, 2, 3, 4 + i) for i in range(3)], 3, family, dtype, [TARGET, (1,)])
                self.check(session, [(1, 2, 3, 4)], 3, family, dtype)

    def test_padding_is_not_read(self, backend: Backend, dtype: str) -> None:
        """What stands right of a row's own tokens is any id and changes nothing."""
        with self.session(backend, dtype=dtype) as session:
            if not session.layout.padding:
                pytest.skip("its batches have rows of one length")
            batch = ScoringBatch.of([(1, 2, 3, 4, 5, 6), (1, 9), (1, 3, 5)], (), TARGET)
            poisoned = batch.suffix_ids.clone()
            for row, length in enumerate(batch.suffix_lengths.tolist()):
                poisoned[row, length:] = tiny.VOCABULARY - 1
            plain = session.log_probs(batch)
            other = session.log_probs(replace(batch, suffix_ids=poisoned))
            assert torch.allclose(plain, other, atol=1e-6), (
                f"Other pad ids changed the scores from {plain.tolist()} to {other.tolist()}."
            )

    def test_rows_do_not_see_each_other(self, backend: Backend, dtype: str) -> None:
        """A row scores the same alone, in a batch, and at another place in it."""
        rows, tolerance = rows_of(0), self.tolerance(self.families[0], dtype)
        with self.session(backend, dtype=dtype) as session:
            together, reverse = scored(session, rows, 0, TARGET), scored(session, rows[::-1], 0, TARGET)
            assert torch.allclose(together, reverse.flip(0), atol=tolerance, rtol=0), "The order of rows matters."
            for row, ours in zip(rows, together, strict=True):
                alone = scored(session, [row], 0, TARGET)[0]
                assert torch.allclose(ours, alone, atol=tolerance, rtol=0), (
                    f"A prompt of {len(row)} tokens scores {alone.tolist()} alone and {ours.tolist()} in a batch."
                )

    def test_it_repeats_itself(self, backend: Backend, dtype: str) -> None:
        """The same batch twice gives the same bits, and no global generator is touched."""
        with self.session(backend, dtype=dtype) as session, only_its_own_generator():
            first, again = (scored(session, rows_of(0), 0, TARGET) for _ in range(2))
            assert torch.equal(first, again), "The same batch gave other numbers the second time."

    def test_scores_are_plain_tensors(self, backend: Backend, dtype: str) -> None:
        """fp32 or better, on the CPU, and the receiver may change them."""
        with self.session(backend, dtype=dtype) as session:
            found = scored(session, rows_of(0)[:1], 0, TARGET)
        assert found.dtype in (torch.float32, torch.float64), f"Log-probabilities are {found.dtype}; fp32 or better."
        assert found.device.type == "cpu", f"Log-probabilities lie on {found.device}; hand them over on the CPU."
        found.add_(1.0)

    def test_the_model_stays_as_it_was(self, backend: Backend) -> None:
        """Weights, modes and flags of a model that the user passed are the same afterwards."""
        loaded = tiny.loaded(self.families[0], DTYPES[self.dtypes[0]])
        fingerprint, mode = loaded.fingerprint, loaded.model.training
        flags = [parameter.requires_grad for parameter in loaded.model.parameters()]
        with self.session(backend) as session:
            scored(session, rows_of(0), 0, TARGET)
        assert loaded.fingerprint == fingerprint, "The weights of the user's model changed."
        assert loaded.model.training == mode, "The mode (train or eval) of the user's model changed."
        assert [parameter.requires_grad for parameter in loaded.model.parameters()] == flags

    def test_empty_and_full_coalitions(self, backend: Backend) -> None:
        """All features and none, through the whole pipeline; without any text the start token is read."""
        with self.session(backend):
            pass  # skips where the backend is unavailable
        with tiny_explainer(backend=backend) as explainer:
            result = explainer.attribute(Text("one two three"), " x", method="shapley")
        tokenizer, model = tiny.tokenizer(), tiny.model()
        target = tokenizer(" x")["input_ids"]
        full, empty = tokenizer("one two three")["input_ids"], [tokenizer.bos_token_id]
        for ours, prompt in ((result.full_value, full), (result.base_value, empty)):
            assert ours == pytest.approx(float(reference.log_probs(model, prompt, target).sum()), abs=1e-4)

    def test_logits_give_the_log_probs(self, backend: Backend, dtype: str) -> None:
        """Where there are logits, their log-softmax is what ``log_probs`` gives."""
        with self.session(backend, dtype=dtype) as session:
            if Capability.LOGITS not in session.capabilities or not isinstance(session, LogitsSession):
                pytest.skip("it gives no logits for this model")
            batch = ScoringBatch.of([(1, 2, 3, 4), (5, 6, 7, 8)], (), TARGET)
            parts = list(session.logits(batch, 1))
            assert [tuple(part.shape[:2]) for part in parts] == [(1, len(TARGET))] * 2, (
                f"Two rows, one at a time, came in shapes {[list(part.shape) for part in parts]}."
            )
            logits = torch.cat(parts)
            (whole,) = session.logits(batch, 2)
            assert torch.allclose(whole, logits, atol=1e-4), "Logits depend on how many rows are handed over at once."
            assert logits.dtype in (torch.float32, torch.float64), f"Logits are {logits.dtype}; fp32 or better."
            found = logits.cpu().double().log_softmax(-1)[:, torch.arange(len(TARGET)), torch.tensor(TARGET)]
            allowed = max(1e-5, self.tolerance(self.families[0], dtype))
            assert torch.allclose(found, session.log_probs(batch).double(), atol=allowed, rtol=0)

    def test_generation_is_greedy(self, backend: Backend) -> None:
        """Where it generates, each token is the likeliest after those before it, and ``room`` is kept."""
        with self.session(backend) as session:
            if Capability.GENERATE not in session.capabilities or not isinstance(session, GenerateSession):
                pytest.skip("it does not generate with this model")
            prompt = (1, 2, 3, 4, 5)
            written = session.generate(prompt, {"max_new_tokens": 6}, 0)
            assert 1 <= len(written) <= 6
            model = tiny.model(self.families[0], DTYPES[self.dtypes[0]])
            for i, token in enumerate(written):
                likeliest = int(reference.logits(model, prompt + written[:i], (0,))[0].argmax())
                assert token == likeliest, f"Token {i} is {token}; the likeliest is {likeliest}."
            assert len(session.generate(prompt, {}, 0, room=2)) <= 2, "`room` is not kept."

    def test_the_inside_is_the_model(self, backend: Backend) -> None:
        """Where gradients or hidden states are offered, they are the model's."""
        inner = {Capability.GRADIENTS, Capability.HIDDEN_STATES, Capability.ATTENTIONS}
        with self.session(backend) as session:
            if not inner & session.capabilities or not isinstance(session, WhiteBoxSession):
                pytest.skip("it gives no access to the model's inside")
            box = session.white_box()
            assert isinstance(box, WhiteBox)
            assert isinstance(box.model, torch.nn.Module)

    def test_closing_is_final_and_idempotent(self, backend: Backend) -> None:
        """``close`` twice is fine; then scoring is refused in words and ``info`` stays; ``release`` loses nothing."""
        with self.session(backend) as session:
            before = scored(session, rows_of(0)[:2], 0, TARGET)
            session.release()
            session.release()
            assert torch.equal(before, scored(session, rows_of(0)[:2], 0, TARGET))
            session.close()
            session.close()
            with pytest.raises(BackendError):
                session.log_probs(ScoringBatch.of([(1, 2)], (), TARGET))
            assert session.info.backend == backend.info.name, "What scored is still asked of a closed session."

    def test_what_does_not_exist_is_refused(self, backend: Backend) -> None:
        """An unknown device or dtype is a ``BackendError`` that names it."""
        with self.session(backend):
            pass
        for keyword in ("device", "dtype"):
            options = {"device": None, "dtype": None, "memory_budget": None} | {keyword: "no-such-thing"}
            with pytest.raises(BackendError, match="no-such-thing"):
                backend.load(tiny.loaded(self.families[0]), **options)  # type: ignore[arg-type]


def rows_of(prefix: int) -> list[tuple[int, ...]]:
    """Prompts of several lengths that share ``prefix`` tokens."""
    draw = torch.Generator().manual_seed(prefix)
    shared = tuple(torch.randint(0, 256, (prefix,), generator=draw).tolist())
    return [shared + tuple(torch.randint(0, 256, (n,), generator=draw).tolist()) for n in LENGTHS]


def scored(session: Session, rows: Rows, prefix: int, target: tuple[int, ...]) -> Float[Tensor, "B T"]:
    """Log-probabilities of rows that share ``prefix`` tokens, laid out as the session wants them."""
    shared = rows[0][:prefix] if session.layout.prefix_sharing else ()
    if session.layout.padding:
        return session.log_probs(ScoringBatch.of(list(rows), shared, target))
    found = torch.full((len(rows), len(target)), torch.nan, dtype=torch.float64)
    for length in {len(row) for row in rows}:
        alike = [i for i, row in enumerate(rows) if len(row) == length]
        found[alike] = session.log_probs(ScoringBatch.of([rows[i] for i in alike], shared, target)).double()
    return found
