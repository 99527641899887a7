"""Texts that a served model writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, ServerError, listing, shown, suggestion
from apportion.options import true_or_false, whole_number
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import Dialect, named_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Writer"]

NEW_TOKENS = 25
NEUTRAL = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "min_p": 0.0, "top_k": -1}
"""In place of defaults that a model's own generation configuration may set on the server."""
OPTIONS = ("max_new_tokens", "do_sample", "temperature", "top_p")


class Writer:
    """Continues prompts.

    Args:
        client: sends requests.
        model: the model's name.
        dialect: how the server scores, which tells engines apart.
        tokenizer: the model's tokenizer.

    Attributes:
        end_ids: tokens that end a text.
    """

    def __init__(self, client: Client, model: str, dialect: Dialect, tokenizer: PreTrainedTokenizerBase) -> None:
        self._client, self._model, self._native = client, model, dialect.name == "input_token_logprobs"
        self._vllm = dialect.name == "prompt_logprobs"
        end = tokenizer.eos_token_id
        self.end_ids: tuple[int, ...] = (end,) if isinstance(end, int) else ()

    def __call__(
        self, ids: tuple[int, ...], options: Mapping[str, object], seed: int, room: int | None
    ) -> tuple[int, ...]:
        """The tokens that follow a prompt.

        Raises:
            InputError: an option is unknown, or the server refuses the prompt.
            ServerError: the server does not answer, or answers what cannot be read.
        """
        count, sampling = _checked(options)
        most = count if room is None else min(count, room)
        try:
            found = self._asked(ids, most, seed, sampling)
        except RefusedError as refused:
            raise InputError(f"The server does not continue a prompt of {len(ids)} tokens ({refused}).") from None
        if not found:
            raise ServerError(
                f"The server at {self._client.address.base} answered without the tokens that the model wrote."
            )
        return found[:most]

    def names_tokens(self, ids: tuple[int, ...]) -> bool:
        """True if the server names the ids of tokens that it writes, found by letting it write one after these.

        Raises:
            ServerError: the server does not answer.
        """
        try:
            return bool(self._asked(ids, 1, 0, {"temperature": 0.0}, trial=True))
        except RefusedError:
            return False

    def _asked(
        self, ids: tuple[int, ...], most: int, seed: int, sampling: Mapping[str, object], *, trial: bool = False
    ) -> tuple[int, ...]:
        """The tokens that follow a prompt; none if the server does not name their ids."""
        address, tokens = self._client.address, len(ids) + most
        if self._native:
            sampled = {"max_new_tokens": most, **NEUTRAL, **sampling}
            content: dict[str, object] = {"input_ids": [*ids], "sampling_params": sampled}
            answer = self._client.post(f"{address.root}/generate", content, tokens, trial=trial)
            return _ids(answer.get("output_ids") if isinstance(answer, Mapping) else None)
        content = {
            "model": self._model,
            "prompt": [*ids],
            "max_tokens": most,
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "seed": seed,
            **(NEUTRAL if self._vllm else {}),
            **sampling,
        }
        answer = self._client.post(f"{address.base}/completions", content, tokens, trial=trial)
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return ()
        logprobs = choice.get("logprobs")
        named = named_ids(logprobs.get("tokens")) if isinstance(logprobs, Mapping) else None
        return _ids(choice.get("token_ids")) or tuple(named or ())


def _ids(found: Any) -> tuple[int, ...]:
    given: Sequence[Any] = found if isinstance(found, list) else ()
    return tuple(given) if all(type(one) is int for one in given) else ()


def _checked(options: Mapping[str, object]) -> tuple[int, dict[str, object]]:
    """The number of new tokens, and options of the request."""
    for name in options:
        if name not in OPTIONS:
            raise InputError(
                f"generate= of the backend 'openai' has no option {name!r}. {suggestion(name, OPTIONS)}It has: "
                f"{listing(OPTIONS)}."
            )
    for name in ("temperature", "top_p"):
        value = options.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"generate= has {name}={shown(value)}; it must be a number above 0.")
    count = whole_number("max_new_tokens", options.get("max_new_tokens", NEW_TOKENS), least=1)
    if not true_or_false("do_sample", options.get("do_sample", False)):
        return count, {"temperature": 0.0}
    chosen = {name: options[name] for name in ("temperature", "top_p") if name in options}
    return count, {"temperature": 1.0, **chosen}
