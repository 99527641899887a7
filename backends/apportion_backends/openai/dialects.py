"""The ways in which engines score given tokens: what is sent, and where the log-probabilities are in the answer.

- vLLM: ``prompt_logprobs`` of its completions API
  (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html).
- SGLang: ``input_token_logprobs`` of its own ``/generate``
  (https://docs.sglang.ai/basic_usage/native_api.html).
- others: OpenAI's ``echo`` with ``logprobs``, of its completions API.

Every number is taken by the id of its token wherever the server names ids, so that an answer about other tokens is not
taken for these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from apportion.protocols.row import Row
from apportion_backends.openai.address import Address

__all__ = [
    "DIALECTS",
    "BadAnswerError",
    "Dialect",
    "Echo",
    "LogProbs",
    "PromptLogProbs",
    "SGLang",
    "choices_of",
    "named_ids",
    "number_of",
]

LogProbs = tuple[float, ...]
LEAST, MOST = -1e6, 1e-3
"""Bounds of what can be a log-probability; engines write about -1e4 for one of 0, and round 0 upwards."""


class BadAnswerError(Exception):
    """An answer does not have what was asked for; the message completes "it answered with …"."""


class Dialect(Protocol):
    """One way to ask for log-probabilities."""

    @property
    def name(self) -> str:
        """Name for messages."""
        ...

    def url(self, address: Address) -> str:
        """The address to send requests to."""
        ...

    def content(self, model: str, rows: Sequence[Row]) -> dict[str, Any]:
        """The content of a request for some rows."""
        ...

    def read(self, answer: Any, rows: Sequence[Row]) -> list[LogProbs]:
        """The log-probabilities of each row's target.

        Raises:
            BadAnswerError: they are not all there.
        """
        ...


class PromptLogProbs:
    """vLLM's way."""

    name = "prompt_logprobs"

    def url(self, address: Address) -> str:
        """The completions API."""
        return f"{address.base}/completions"

    def content(self, model: str, rows: Sequence[Row]) -> dict[str, Any]:
        """Whole rows as prompts; a server writes at least one token, which is ignored."""
        return {**_completion(model, rows), "prompt_logprobs": 0}

    def read(self, answer: Any, rows: Sequence[Row]) -> list[LogProbs]:
        """The entries of the target's ids at its places."""
        return [
            self._of_row(choice.get("prompt_logprobs"), row)
            for choice, row in zip(choices_of(answer, len(rows)), rows, strict=True)
        ]

    def _of_row(self, entries: Any, row: Row) -> LogProbs:
        if not isinstance(entries, list):
            raise BadAnswerError("no prompt_logprobs")
        ids = (*row.prompt, *row.target)
        if len(entries) != len(ids):
            raise BadAnswerError(f"prompt_logprobs of {len(entries)} tokens instead of {len(ids)}")
        # All of the row is checked: a prompt that was read as other tokens makes other numbers of the target's.
        for place, (entry, token) in enumerate(zip(entries, ids, strict=True)):
            if place and not (isinstance(entry, Mapping) and str(token) in entry):
                raise BadAnswerError(f"prompt_logprobs without token {token} at place {place}")
        found = (entries[len(row.prompt) + i][str(token)] for i, token in enumerate(row.target))
        return tuple(number_of(one.get("logprob") if isinstance(one, Mapping) else None) for one in found)


class SGLang:
    """SGLang's way; scores begin at the last token of the prompt, so that the server may reuse what is before it."""

    name = "input_token_logprobs"

    def url(self, address: Address) -> str:
        """SGLang's own API."""
        return f"{address.root}/generate"

    def content(self, model: str, rows: Sequence[Row]) -> dict[str, Any]:
        """Whole rows; the server has one model, so its name is not sent."""
        return {
            "input_ids": [[*row.prompt, *row.target] for row in rows],
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": [len(row.prompt) - 1 for row in rows],
        }

    def read(self, answer: Any, rows: Sequence[Row]) -> list[LogProbs]:
        """The last entries of each row, ``[log-probability, id, text]``."""
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) != len(rows):
            raise BadAnswerError(f"{len(answers)} answers instead of {len(rows)}")
        return [self._of_row(one, row) for one, row in zip(answers, rows, strict=True)]

    def _of_row(self, answer: Any, row: Row) -> LogProbs:
        meta = answer.get("meta_info") if isinstance(answer, Mapping) else None
        entries = meta.get("input_token_logprobs") if isinstance(meta, Mapping) else None
        if not isinstance(entries, list) or len(entries) < len(row.target):
            raise BadAnswerError("no or too few input_token_logprobs")
        assert isinstance(meta, Mapping)
        length, read = len(row.prompt) + len(row.target), meta.get("prompt_tokens")
        if type(read) is int and read != length:
            raise BadAnswerError(f"a prompt of {read} tokens instead of {length}")
        last = entries[len(entries) - len(row.target) :]
        for entry, token in zip(last, row.target, strict=True):
            if not isinstance(entry, list | tuple) or len(entry) < 2 or entry[1] != token:
                raise BadAnswerError(f"input_token_logprobs of {entry!r:.60} instead of token {token}")
        return tuple(number_of(entry[0]) for entry in last)


class Echo:
    """OpenAI's way: the prompt comes back with the log-probability of each token."""

    name = "echo"

    def url(self, address: Address) -> str:
        """The completions API."""
        return f"{address.base}/completions"

    def content(self, model: str, rows: Sequence[Row]) -> dict[str, Any]:
        """Whole rows as prompts, which are sent back; engines that can are asked to name tokens by their ids."""
        return {**_completion(model, rows), "echo": True, "logprobs": 1, "return_tokens_as_token_ids": True}

    def read(self, answer: Any, rows: Sequence[Row]) -> list[LogProbs]:
        """The numbers at the places of the target."""
        choices = choices_of(answer, len(rows))
        lengths = [len(row.prompt) + len(row.target) for row in rows]
        usage = answer.get("usage")
        read = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
        if type(read) is int and read != sum(lengths):
            raise BadAnswerError(f"prompts of {read} tokens instead of {sum(lengths)}")
        counted = type(read) is int
        return [self._of_row(choice.get("logprobs"), row, counted) for choice, row in zip(choices, rows, strict=True)]

    def _of_row(self, logprobs: Any, row: Row, counted: bool) -> LogProbs:
        numbers = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
        if not isinstance(numbers, list):
            raise BadAnswerError("no token_logprobs")
        ids = (*row.prompt, *row.target)
        tokens = logprobs.get("tokens")
        named = named_ids(tokens)
        if named is not None and tuple(named[: len(ids)]) != ids:
            raise BadAnswerError(f"token_logprobs of other tokens: {named[: len(ids)]!r:.80}")
        # Without ids and counts, a token that the server put before the prompt could not be told from a written one.
        if not len(ids) <= len(numbers) <= len(ids) + 1 or (named is None and not counted):
            raise BadAnswerError(f"token_logprobs of {len(numbers)} tokens instead of {len(ids)}, and one written")
        return tuple(number_of(one) for one in numbers[len(row.prompt) : len(ids)])


DIALECTS: tuple[Dialect, ...] = (PromptLogProbs(), SGLang(), Echo())
"""The ways, in the order in which they are tried."""


def _completion(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": [[*row.prompt, *row.target] for row in rows],
        "max_tokens": 1,
        "temperature": 0.0,
    }


def choices_of(answer: Any, count: int) -> list[Mapping[str, Any]]:
    """The choices of an answer in the order of the prompts.

    Raises:
        BadAnswerError: they are not all there.
    """
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        raise BadAnswerError("no choices")
    indexes = [one.get("index", place) for place, one in enumerate(choices)]
    if not all(type(one) is int for one in indexes):
        raise BadAnswerError(f"choices without whole numbers as indexes: {indexes!r:.60}")
    by_index = dict(zip(indexes, choices, strict=True))
    if len(choices) != count or by_index.keys() != set(range(count)):
        raise BadAnswerError(f"choices {sorted(map(str, by_index))} for {count} prompts")
    return [by_index[i] for i in range(count)]


def named_ids(tokens: Any) -> list[int] | None:
    """The ids of tokens that are written as ``token_id:17``; ``None`` if they are not."""
    if not isinstance(tokens, list):
        return None
    parts = [str(token).partition("token_id:") for token in tokens]
    return [int(number) for _, _, number in parts] if all(number.isdigit() for _, _, number in parts) else None


def number_of(found: object) -> float:
    """A log-probability in an answer.

    Raises:
        BadAnswerError: it is none.
    """
    if not isinstance(found, int | float) or isinstance(found, bool) or not LEAST <= found <= MOST:
        raise BadAnswerError(f"{found!r:.40} in place of a log-probability")
    return float(found)
