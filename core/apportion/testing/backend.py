"""The contract of backends: the numbers of one-row-at-a-time scoring, for any layout of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BackendError, CapabilityError
from apportion.explainer import Explainer
from apportion.hooks.object_check import object_faults
from apportion.models.dtypes import DTYPES
from apportion.prompts.text import Text
from apportion.protocols.backend import (
    Available,
    Backend,
    BackendInfo,
    Capability,
    GenerateSession,
    LogitsSession,
    Session,
    TextSession,
    Unavailable,
)
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.exports import ExportBackend
from apportion.protocols.inside import InsideSession
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import Media, ModelInput, Row
from apportion.scoring.batches import Batches
from apportion.testing import reference, tiny, tiny_pictures
from apportion.testing.contract import Contract
from apportion.testing.exporting import check_export
from apportion.testing.generating import check_stop_texts, check_texts
from apportion.testing.inside import check_gradient, check_logits_of_embeddings, check_trace, hooks_of
from apportion.testing.randomness import only_its_own_generator
from apportion.testing.reading_pictures import check_pictures
from apportion.testing.rows import Rows, rows_of, scored, scored_rows

__all__ = ["BackendContract"]

TARGET = (40, 41, 42)


class BackendContract(Contract):
    """Contract of backends. Subclass it, provide a fixture ``backend``, and set the models and precisions to check.

    If the backend is unavailable, or a session lacks a capability, the checks are skipped with a reason. The reference
    is the model's own forward pass: one whole prompt at a time, without a cache, with log-probabilities computed in
    float64.

    Attributes:
        families: architectures of ``apportion.testing.tiny`` to check.
        dtypes: dtypes of the weights.
        tolerances: largest difference from the reference in nats, by dtype.
        device: device to run on; ``None`` leaves the choice to the backend.
        media: two different media, for backends that read more than text, and models of their own.
        picture_families: architectures of ``apportion.testing.tiny_pictures`` to check, for backends that read pictures
            with models of transformers.
    """

    families: ClassVar[Sequence[str]] = ("llama", "gpt2", "qwen3")
    dtypes: ClassVar[Sequence[str]] = ("float32",)
    tolerances: ClassVar[Mapping[str, float]] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.2, "float16": 0.03}
    device: ClassVar[str | None] = None
    media: ClassVar[Sequence[Media]] = ()
    picture_families: ClassVar[Sequence[str]] = ()

    @pytest.fixture
    def backend(self) -> Backend:
        """Your backend."""
        raise NotImplementedError("Define a fixture `backend` that returns your backend.")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a check once for each family and dtype that it requests."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)
        if "picture_family" in metafunc.fixturenames:
            metafunc.parametrize("picture_family", self.picture_families)
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.dtypes)

    def spec(self, family: str, dtype: str) -> ModelSpec:
        """The model to open; override it for backends that do not open transformers models."""
        return tiny.spec(family, DTYPES[dtype])

    def expected_logits(
        self, family: str, dtype: str, prompt: Sequence[int], target: Sequence[int], media: Sequence[Media] = ()
    ) -> Float[Tensor, "T V"]:
        """Reference logits in float64; override it together with ``spec``."""
        assert not media, "Override expected_logits: the tiny models read only text."
        return reference.logits(tiny.model(family, DTYPES[dtype]), prompt, target)

    def expected(
        self, family: str, dtype: str, prompt: Sequence[int], target: Sequence[int], media: Sequence[Media] = ()
    ) -> Float[Tensor, " T"]:
        """Reference log-probability of each target token."""
        logits = self.expected_logits(family, dtype, prompt, target, media)
        return logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]

    def tolerance(self, family: str, dtype: str) -> float:
        """Largest difference allowed; override it for models that compute parts in lower precision than their dtype."""
        return self.tolerances[dtype]

    @contextmanager
    def session(self, backend: Backend, family: str = "", dtype: str = "") -> Iterator[Session]:
        """Open a session of a tiny model, by default of the first family and dtype."""
        state = backend.availability()
        if isinstance(state, Unavailable):
            pytest.skip(f"{backend.info.name} is unavailable: {state.reason}")
        spec = self.spec(family or self.families[0], dtype or self.dtypes[0])
        session = backend.load(spec, device=self.device, dtype=None, memory_budget=None)
        try:
            yield session
        finally:
            session.close()

    def check(
        self, session: Session, rows: Rows, prefix: int, family: str, dtype: str, target: Rows | None = None
    ) -> None:
        """Compare every row with the reference."""
        for ids in target or (TARGET,):
            found = scored(session, rows, prefix, ids)
            for row, ours in zip(rows, found, strict=True):
                expected = self.expected(family, dtype, row, ids)
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
        """``availability`` never raises; an unavailable backend gives a reason and a hint."""
        state = backend.availability()
        assert isinstance(state, Available | Unavailable), f"availability() returned {state!r}."
        if isinstance(state, Unavailable):
            assert state.reason, "It is unavailable, but gives no reason."
            assert state.hint, f"It is unavailable ({state.reason}), but gives no hint on what to do."

    def test_a_session_says_what_it_is(self, backend: Backend) -> None:
        """The session has the protocol, consistent capabilities, and a layout that can be planned for."""
        with self.session(backend) as session:
            assert isinstance(session, Session), f"{type(session).__name__} lacks a part of the Session protocol."
            assert session.info.backend == backend.info.name
            assert session.capabilities <= backend.info.capabilities, "It has capabilities that its backend lacks."
            assert session.layout.batch_tokens >= 1
            assert session.layout.prefix_sharing == (Capability.PREFIX_CACHE in session.capabilities)
            protocols = {
                Capability.LOGITS: LogitsSession,
                Capability.GENERATE: GenerateSession,
                Capability.TEXT: TextSession,
                Capability.GRADIENTS: InsideSession,
                Capability.HIDDEN_STATES: InsideSession,
                Capability.ATTENTIONS: InsideSession,
            }
            for capability, protocol in protocols.items():
                if capability in session.capabilities:
                    assert isinstance(session, protocol), (
                        f"It has {capability.value}, but is not a {protocol.__name__}."
                    )
            layout = session.layout
            assert layout.lanes >= 1
            assert layout.joint or not (layout.packing or layout.prefix_sharing), "Only joint layouts can share."
            assert session.kept is None, "Nothing has been read yet, so nothing can be kept."
            assert session.info.model, "info.model must not be empty: results show it."
            assert callable(session.tokenizer)
            small, large = (session.row_bytes(0, suffix, 3) for suffix in (10, 100))
            assert 0 < small < large, "row_bytes() must be positive and grow with the length of a row."

    def test_batches_equal_the_reference(self, backend: Backend, family: str, dtype: str) -> None:
        """Rows of different lengths, with shared prefixes of 0, 1 and 20 tokens, and one and three target tokens."""
        with self.session(backend, family, dtype) as session:
            for prefix in (0, 1, 20):
                self.check(session, rows_of(prefix), prefix, family, dtype, [TARGET, TARGET[:1]])

    def test_sharing_changes_nothing(self, backend: Backend, dtype: str) -> None:
        """The same rows with and without a shared prefix; successive prefixes that are longer, shorter or different."""
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
        """One row; prompts of a single token; a prime number of rows; rows one token longer than the prefix."""
        family = self.families[0]
        with self.session(backend, dtype=dtype) as session:
            self.check(session, [(7,)], 0, family, dtype, [TARGET, (1,)])
            self.check(session, [(i,) for i in range(13)], 0, family, dtype)
            self.check(session, rows_of(0)[:1], 0, family, dtype)
            if session.layout.prefix_sharing:
                self.check(session, [(1, 2, 3, 4 + i) for i in range(3)], 3, family, dtype, [TARGET, (1,)])
                self.check(session, [(1, 2, 3, 4)], 3, family, dtype)

    def test_packed_batches_equal_the_reference(self, backend: Backend, family: str, dtype: str) -> None:
        """If rows may be packed: batches that continue from one another, and the tokens kept in between."""
        with self.session(backend, family, dtype) as session:
            limit = session.layout.packing_limit
            rows = sorted(row for row in rows_of(4) if limit is None or len(row) + len(TARGET) - 1 <= limit)
            if not session.layout.packing or len(rows) < 2:
                pytest.skip("it does not pack rows for this model")
            for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :], rows[:1]):
                found = session.log_probs(ScoringBatch.of(part, TARGET, packed=True))
                for row, ours in zip(part, found, strict=True):
                    expected = self.expected(family, dtype, row, TARGET)
                    worst = float((ours.double() - expected).abs().max())
                    assert worst <= self.tolerance(family, dtype), (
                        f"A packed prompt of {len(row)} tokens is off by {worst:.3g} nats on {family} in {dtype}."
                    )
                assert session.kept == ModelInput(Row(part[-1], TARGET).read), (
                    f"After a packed batch, the last row must be kept, not {session.kept}."
                )
            session.release()
            assert session.kept is None, "release() must discard kept tokens."

    def test_lanes_change_nothing(self, backend: Backend, dtype: str) -> None:
        """With several batches at once, finished in any order, each row gets its own scores."""
        with self.session(backend, dtype=dtype) as session:
            if session.layout.lanes == 1:
                pytest.skip("it takes one batch at a time")
            rows = [Row((*row, i % 200), TARGET) for i, row in enumerate(rows_of(0) * 6)]
            found: dict[Row, Tensor] = {}
            for batch, scores, _ in Batches(session).run(rows, session.log_probs, _ignore):
                found.update((rows[number], score) for number, score in zip(batch.rows, scores, strict=True))
            assert len(found) == len(rows), "Some rows were not scored."
            for row in rows:
                expected = self.expected(self.families[0], dtype, row.prompt, row.target)
                worst = float((found[row].double() - expected).abs().max())
                assert worst <= self.tolerance(self.families[0], dtype), f"A row is off by {worst:.3g} nats in lanes."

    def test_media_are_read(self, backend: Backend, dtype: str) -> None:
        """Rows with the same tokens and different media get different scores in one batch."""
        with self.session(backend, dtype=dtype) as session:
            if Capability.IMAGES not in session.capabilities:
                pytest.skip("it reads only text")
            assert len(set(self.media)) >= 2, "Set the attribute `media` to two different media."
            rows = tuple(Row((1, 2, 3, 4), TARGET, media) for media in ((), *((one,) for one in self.media)))
            for row, ours in zip(rows, session.log_probs(ScoringBatch(rows)), strict=True):
                expected = self.expected(self.families[0], dtype, row.prompt, row.target, row.media)
                worst = float((ours.double() - expected).abs().max())
                assert worst <= self.tolerance(self.families[0], dtype), (
                    f"A row with {len(row.media)} media is off by {worst:.3g} nats."
                )

    def test_pictures_are_read(self, backend: Backend, picture_family: str) -> None:
        """Rows with pictures get the scores of rows read alone from pixels, in one batch, in another order, and alone.

        Prompts and targets have several lengths, pictures several sizes, and one prompt has two pictures.
        """
        if isinstance(backend.availability(), Unavailable):
            pytest.skip(f"{backend.info.name} is unavailable")
        spec = tiny_pictures.spec(picture_family)
        session = backend.load(spec, device=self.device, dtype=None, memory_budget=None)
        try:
            check_pictures(session, picture_family, self.tolerances["float32"])
        finally:
            session.close()

    def test_it_names_the_model_it_scores(self, backend: Backend) -> None:
        """Two sessions of one model have one fingerprint and checksum; ``claims`` opens nothing and never raises."""
        spec = self.spec(self.families[0], self.dtypes[0])
        assert backend.claims(spec) is True, "backend='auto' would never take it for its own model."
        assert backend.claims(ModelSpec("https://localhost:1/nowhere")) in (True, False)
        with self.session(backend) as session, self.session(backend) as other:
            assert session.fingerprint(), "The fingerprint must not be empty: results record it."
            assert isinstance(session.fingerprint(), str), "fingerprint() must return a string."
            assert session.fingerprint() == other.fingerprint(), "One model has two fingerprints."
            try:
                assert isinstance(session.checksum(), str), "checksum() must return a string, or raise CapabilityError."
                assert session.checksum() == other.checksum(), "One model has two checksums."
            except CapabilityError as error:
                assert str(error), "There is no checksum, but the error gives no reason."

    def test_rows_do_not_see_each_other(self, backend: Backend, dtype: str) -> None:
        """A row gets the same scores alone, in a batch, and at another position in the batch."""
        rows, tolerance = rows_of(0), self.tolerance(self.families[0], dtype)
        with self.session(backend, dtype=dtype) as session:
            together, reverse = scored(session, rows, 0, TARGET), scored(session, rows[::-1], 0, TARGET)
            assert torch.allclose(together, reverse.flip(0), atol=tolerance, rtol=0), "The order of rows matters."
            for row, ours in zip(rows, together, strict=True):
                alone = scored(session, [row], 0, TARGET)[0]
                assert torch.allclose(ours, alone, atol=tolerance, rtol=0), (
                    f"A prompt of {len(row)} tokens scores {alone.tolist()} alone and {ours.tolist()} in a batch."
                )

    def test_targets_are_those_of_their_rows(self, backend: Backend, family: str, dtype: str) -> None:
        """Rows with one prompt and several targets of any length, in one batch and in the next, each get their own."""
        targets = (TARGET, (50, 51, 52, 53, 54), (60,))
        with self.session(backend, family, dtype) as session:
            for chosen in (targets, targets[::-1], targets[1:2]):
                rows = [Row(prompt, target) for prompt in rows_of(0)[1:4] for target in chosen]
                for row, ours in zip(rows, scored_rows(session, rows), strict=True):
                    expected = self.expected(family, dtype, row.prompt, row.target)
                    worst = float((ours[: len(row.target)].double() - expected).abs().max())
                    assert worst <= self.tolerance(family, dtype), (
                        f"One of several targets of a prompt, of {len(row.target)} tokens, is off by {worst:.3g} nats "
                        f"on {family} in {dtype}."
                    )

    def test_it_repeats_itself(self, backend: Backend, dtype: str) -> None:
        """The same batch gives the same bits twice, and global random generators are unchanged."""
        with self.session(backend, dtype=dtype) as session, only_its_own_generator():
            first, again = (scored(session, rows_of(0), 0, TARGET) for _ in range(2))
            assert torch.equal(first, again), "The same batch gave different numbers the second time."

    def test_scores_are_plain_tensors(self, backend: Backend, dtype: str) -> None:
        """Scores are fp32 or better, on the CPU, and may be modified by the caller."""
        with self.session(backend, dtype=dtype) as session:
            found = scored(session, rows_of(0)[:1], 0, TARGET)
        assert found.dtype in (torch.float32, torch.float64), f"Log-probabilities must not be {found.dtype}."
        assert found.device.type == "cpu", f"Log-probabilities must be on the CPU, not on {found.device}."
        found.add_(1.0)

    def test_the_model_stays_as_it_was(self, backend: Backend) -> None:
        """Weights, modes and flags of a model that the user passed are unchanged afterwards."""
        model = self.spec(self.families[0], self.dtypes[0]).objects
        if not isinstance(model, torch.nn.Module):
            pytest.skip("its model is not a torch module")
        before = [(p.detach().clone(), p.requires_grad) for p in model.parameters()]
        mode = model.training
        with self.session(backend) as session:
            scored(session, rows_of(0), 0, TARGET)
        after = [(p.detach(), p.requires_grad) for p in model.parameters()]
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(before, after, strict=True)), (
            "The weights of the user's model changed."
        )
        assert model.training == mode, "The mode (train or eval) of the user's model changed."
        assert [flag for _, flag in after] == [flag for _, flag in before], "requires_grad flags changed."

    def test_empty_and_full_coalitions(self, backend: Backend) -> None:
        """The full and the empty coalition, through the whole pipeline; without any text, the start token is read."""
        with self.session(backend):
            pass  # skips if the backend is unavailable
        family, dtype = self.families[0], self.dtypes[0]
        with Explainer(self.spec(family, dtype), backend=backend, progress=False) as explainer:
            result = explainer.attribute(Text("one two three"), " x", method="shapley")
            tokenizer = explainer.session.tokenizer
        target = tokenizer(" x")["input_ids"]
        full, empty = tokenizer("one two three")["input_ids"], [tokenizer.bos_token_id]
        allowed = max(1e-4, len(target) * self.tolerance(family, dtype))
        for ours, prompt in ((result.full_value, full), (result.base_value, empty)):
            assert ours == pytest.approx(float(self.expected(family, dtype, prompt, target).sum()), abs=allowed)

    def test_logits_give_the_log_probs(self, backend: Backend, dtype: str) -> None:
        """If there are logits, their log-softmax equals ``log_probs``."""
        with self.session(backend, dtype=dtype) as session:
            if Capability.LOGITS not in session.capabilities or not isinstance(session, LogitsSession):
                pytest.skip("it does not provide logits for this model")
            batch = ScoringBatch.of([(1, 2, 3, 4), (5, 6, 7, 8)], TARGET)
            parts = list(session.logits(batch, 1))
            assert [tuple(part.shape[:2]) for part in parts] == [(1, len(TARGET))] * 2, (
                f"Two rows, one at a time, have shapes {[list(part.shape) for part in parts]}."
            )
            logits = torch.cat(parts)
            (whole,) = session.logits(batch, 2)
            assert torch.allclose(whole, logits, atol=1e-4), "Logits depend on the number of rows yielded at once."
            assert logits.dtype in (torch.float32, torch.float64), f"Logits must be fp32 or better, not {logits.dtype}."
            found = logits.cpu().double().log_softmax(-1)[:, torch.arange(len(TARGET)), torch.tensor(TARGET)]
            allowed = max(1e-5, self.tolerance(self.families[0], dtype))
            assert torch.allclose(found, session.log_probs(batch).double(), atol=allowed, rtol=0)

    def test_generation_is_greedy(self, backend: Backend) -> None:
        """If the session generates, each token is the most likely one; ``room`` and ``stop`` end the text."""
        with self.session(backend) as session:
            if Capability.GENERATE not in session.capabilities or not isinstance(session, GenerateSession):
                pytest.skip("it does not generate with this model")
            prompt = (1, 2, 3, 4, 5)
            written = session.generate(ModelInput(prompt), {"max_new_tokens": 6}, 0)
            assert 1 <= len(written) <= 6
            for i, token in enumerate(written):
                logits = self.expected_logits(self.families[0], self.dtypes[0], prompt, written[: i + 1])
                likeliest = int(logits[-1].argmax())
                assert token == likeliest, f"Token {i} is {token}; the most likely one is {likeliest}."
            assert len(session.generate(ModelInput(prompt), {}, 0, room=2)) <= 2, "It generated more than `room`."
            check_stop_texts(session)
            check_texts(session)

    def test_an_export_is_the_model(self, backend: Backend, tmp_path: Path) -> None:
        """If the backend exports: the folder is opened, gives the numbers of the model, and is not written over."""
        if not isinstance(backend, ExportBackend):
            pytest.skip("it does not export models")
        with self.session(backend):
            pass  # skips if the backend is unavailable
        spec = tiny.spec("llama", DTYPES["float32"])
        model = tiny.model("llama", DTYPES["float32"])

        def expected(prompt: Sequence[int], target: Sequence[int]) -> Float[Tensor, " T"]:
            return reference.log_probs(model, prompt, target)

        check_export(backend, spec, tmp_path / "export", expected, TARGET, self.tolerances["float32"])

    def test_the_inside_is_the_model(self, backend: Backend, family: str) -> None:
        """If there are gradients: embeddings give the logits of their tokens, and gradients are correct.

        The derivative along a random direction is compared with a finite difference.
        """
        dtype = self.dtypes[0]
        with self.session(backend, family) as session:
            if Capability.GRADIENTS not in session.capabilities or not isinstance(session, InsideSession):
                pytest.skip("it does not provide gradients")
            prompt = (1, 2, 3, 4, 5)
            allowed = max(1e-5, 10 * self.tolerance(family, dtype))
            check_logits_of_embeddings(
                session, prompt, TARGET, self.expected_logits(family, dtype, prompt, TARGET), allowed
            )
            if dtype == "float64":  # finite differences of rounded values are too inaccurate
                check_gradient(session, prompt, TARGET)

    def test_a_trace_is_of_the_model(self, backend: Backend, family: str) -> None:
        """A trace contains what was requested, in the right shapes; no hooks remain."""
        with self.session(backend, family) as session:
            if not isinstance(session, InsideSession):
                pytest.skip("it does not provide access to the model's internals")
            model = self.spec(family, self.dtypes[0]).objects
            before = hooks_of(model)
            check_trace(session, session.capabilities, (1, 2, 3, 4, 5), TARGET)
            assert hooks_of(model) == before, "A trace left hooks on the model."

    def test_closing_is_final_and_idempotent(self, backend: Backend) -> None:
        """``close`` may be called twice; then scoring raises a ``BackendError``, and ``info`` remains.

        ``release`` does not change scores.
        """
        with self.session(backend) as session:
            before = scored(session, rows_of(0)[:2], 0, TARGET)
            session.release()
            session.release()
            assert torch.equal(before, scored(session, rows_of(0)[:2], 0, TARGET))
            session.close()
            session.close()
            with pytest.raises(BackendError):
                session.log_probs(ScoringBatch.of([(1, 2)], TARGET))
            assert session.info.backend == backend.info.name, "A closed session must keep its info."

    def test_what_does_not_exist_is_refused(self, backend: Backend) -> None:
        """An unknown device or dtype raises a ``BackendError`` that names it."""
        with self.session(backend):
            pass
        for keyword in ("device", "dtype"):
            options = {"device": None, "dtype": None, "memory_budget": None} | {keyword: "no-such-thing"}
            with pytest.raises(BackendError, match="no-such-thing"):
                backend.load(self.spec(self.families[0], self.dtypes[0]), **options)  # type: ignore[arg-type]


def _ignore(_: str) -> None: ...
