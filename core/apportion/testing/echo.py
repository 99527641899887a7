"""A backend without a model: it scores by a rule over token ids, so that the pipeline can be tested alone.

Its scores are known in closed form (``echo_logits``). It opens no files and creates no torch modules.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from apportion.errors import BackendError, ModelError
from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register
from apportion.models.tokenizer import open_tokenizer
from apportion.protocols.backend import Available, BackendInfo, Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import Media, ModelInput, Row
from apportion.testing import tiny

__all__ = ["EchoBackend", "EchoSession", "apportion_register_backends", "echo_logits", "echo_spec"]

MODULUS = 9973
ADDRESS = "echo://"
"""The model's address; backends that open files do not claim addresses."""
PATIENCE = 0.2
"""Seconds that a batch waits for other batches, if there are several lanes."""


def echo_logits(prompt: Sequence[int], target: Sequence[int], media: Sequence[Media] = ()) -> Float[Tensor, "T V"]:
    """Compute logits by the rule; they depend on all earlier tokens and media, and on their order."""
    state = 17
    for one in media:
        state = (31 * state + int(one.digest, 16)) % MODULUS
    states = []
    for i, token in enumerate((*prompt, *target[:-1])):
        state = (31 * state + 7 * token + 3) % MODULUS
        if i >= len(prompt) - 1:
            states.append(state)
    places = torch.tensor(states, dtype=torch.float64)[:, None]
    vocabulary = torch.arange(tiny.VOCABULARY, dtype=torch.float64)
    return 2.0 * torch.sin(0.37 * places + 1.7 * vocabulary) + torch.cos(0.011 * places * (1.0 + vocabulary % 7))


def echo_spec() -> ModelSpec:
    """The model that an ``EchoBackend`` opens, with a tokenizer that has one token per byte."""
    return ModelSpec(ADDRESS, tiny.tokenizer())


class EchoBackend:
    """Opens the model ``echo://``.

    Args:
        lanes: number of batches at once. Above 1, batches finish in the reverse order of their arrival.
        joint: prompt and target are read as one sequence; ``False`` to read them separately, as encoder–decoder models
            do.
        images: accept media.
    """

    def __init__(self, *, lanes: int = 1, joint: bool = True, images: bool = False) -> None:
        self._layout = Layout(
            padding=True, prefix_sharing=False, batch_tokens=256 if lanes == 1 else 64, joint=joint, lanes=lanes
        )
        self._images = images

    @property
    def info(self) -> BackendInfo:
        """Name and capabilities."""
        capabilities = {Capability.LOG_PROBS, Capability.LOGITS, Capability.GENERATE}
        if self._images:
            capabilities.add(Capability.IMAGES)
        return BackendInfo("echo", ("cpu",), frozenset(capabilities), -100, "scores by a rule, for tests")

    def availability(self) -> Available:
        """The backend is always available."""
        return Available("a rule over token ids")

    def claims(self, spec: ModelSpec) -> bool:
        """True only for the model with this address."""
        return spec.objects is None and spec.source == ADDRESS

    def load(self, spec: ModelSpec, *, device: str | None, dtype: str | None, memory_budget: int | None) -> EchoSession:
        """Open the model.

        Raises:
            ModelError: the spec is for another model.
            BackendError: the device is not the CPU, or the dtype is not float64.
        """
        if not self.claims(spec):
            raise ModelError(f"The backend 'echo' opens the model '{ADDRESS}', not {spec.source!r}.")
        if device not in (None, "cpu") or dtype not in (None, "float64"):
            raise BackendError(f"The backend 'echo' computes on 'cpu' in 'float64', not on {device!r} in {dtype!r}.")
        tokenizer = tiny.tokenizer() if spec.tokenizer is None else open_tokenizer(spec)
        return EchoSession(tokenizer, self._layout, self.info.capabilities, memory_budget or 2**20)


class EchoSession:
    """Scores by the rule.

    Attributes:
        asked: the rows of every batch received.
        most_under_way: maximum number of batches in progress at once.
    """

    kept: ModelInput | None = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        capabilities: frozenset[Capability],
        memory_budget: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.layout = layout
        self.capabilities = capabilities
        self.info = SessionInfo(
            backend="echo",
            device="cpu",
            dtype="float64",
            context_length=512,
            memory_budget=memory_budget,
            vocabulary=tiny.VOCABULARY,
            model="echo",
        )
        self.asked: list[tuple[Row, ...]] = []
        self.most_under_way = 0
        self._under_way: list[int] = []
        self._changed = threading.Condition()
        self._closed = False

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Memory estimate of 64 bytes per token."""
        return 64 * (prefix + suffix + targets)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Score by the rule; with several lanes, the batch that arrived last finishes first."""
        self._check_open()
        self.asked.append(batch.rows)
        if self.layout.lanes > 1:
            self._in_company()
        found = torch.zeros(batch.n_rows, batch.n_targets, dtype=torch.float64)
        for i, row in enumerate(batch.rows):
            scores = echo_logits(row.prompt, row.target, row.media).log_softmax(-1)
            found[i, : len(row.target)] = scores[torch.arange(len(row.target)), torch.tensor(row.target)]
        return found

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """Yield logits by the rule, a few rows at a time."""
        self._check_open()
        self.asked.append(batch.rows)
        for start in range(0, batch.n_rows, rows):
            part = batch.rows[start : start + rows]
            found = torch.zeros(len(part), batch.n_targets, tiny.VOCABULARY, dtype=torch.float64)
            for i, row in enumerate(part):
                found[i, : len(row.target)] = echo_logits(row.prompt, row.target, row.media)
            yield found

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """Generate greedily, up to the token that completes a stop text."""
        self._check_open()
        wanted = options.get("max_new_tokens", 5)
        count = wanted if isinstance(wanted, int) else 5
        written: tuple[int, ...] = ()
        for _ in range(count if room is None else min(count, room)):
            logits = echo_logits(prompt.ids + written, (0,), prompt.media)
            written += (int(logits[0].argmax()),)
            if any(one in self.tokenizer.decode(list(written)) for one in stop):
                break
        return written

    def fingerprint(self) -> str:
        """A constant, because there is only one model."""
        return "echo"

    def checksum(self) -> str:
        """A constant, because the rule never changes."""
        return f"echo {MODULUS}"

    def release(self) -> None:
        """Do nothing: nothing is kept."""

    def close(self) -> None:
        """Refuse further scoring."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("This session is closed; make a new Explainer.")

    def _in_company(self) -> None:
        """Wait until all lanes are in use, or a timeout; then wait until batches that arrived later have finished."""
        with self._changed:
            number = len(self.asked)
            self._under_way.append(number)
            self.most_under_way = max(self.most_under_way, len(self._under_way))
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._under_way) >= self.layout.lanes, timeout=PATIENCE)
            self._changed.wait_for(lambda: max(self._under_way) <= number, timeout=PATIENCE)
            self._under_way.remove(number)
            self._changed.notify_all()


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``echo``, if this module is passed as a plugin."""
    register("echo", EchoBackend, summary="scores by a rule over token ids, for tests")
