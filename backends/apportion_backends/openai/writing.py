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

__all__ = ["Writer", "generation_options"]

NEW_TOKENS = 25
GREEDY: Mapping[str, object] = {"temperature": 0.0}
NEUTRAL = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "min_p": 0.0, "top_k": -1}
"""In place of defaults that a model's own generation configuration may set on the server."""
MOST_STOPS = 4
"""Stop texts that OpenAI's API takes in a request; texts are cut here in any case."""
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
        written = self._written(ids, options, seed, room, ())
        found = _tokens(written)
        if not found:
            raise ServerError(
                f"The server at {self._client.address.base} answered without the tokens that the model wrote."
            )
        return found[: self._most(options, room)]

    def text(
        self, ids: tuple[int, ...], options: Mapping[str, object], seed: int, room: int | None, stop: Sequence[str]
    ) -> str:
        """The text that follows a prompt, without control tokens.

        Raises:
            InputError, ServerError: as for its tokens.
        """
        found = self._written(ids, options, seed, room, stop).get("text")
        if not isinstance(found, str):
            raise ServerError(f"The server at {self._client.address.base} answered without the text that it wrote.")
        return found

    def abilities(self, ids: tuple[int, ...]) -> tuple[bool, bool]:
        """True if the server writes texts, and true if it names the ids of their tokens, found by a token after these.

        Raises:
            ServerError: the server does not answer.
        """
        try:
            found = self._choice(ids, 1, 0, GREEDY, trial=True)
        except RefusedError:
            return False, False
        return isinstance(found.get("text"), str), bool(_tokens(found))

    def _most(self, options: Mapping[str, object], room: int | None) -> int:
        count = generation_options(options)[0]
        return count if room is None else min(count, room)

    def _written(
        self, ids: tuple[int, ...], options: Mapping[str, object], seed: int, room: int | None, stop: Sequence[str]
    ) -> Mapping[str, Any]:
        drawn = generation_options(options)[1]
        try:
            return self._choice(ids, self._most(options, room), seed, GREEDY if drawn is None else drawn, stop)
        except RefusedError as refused:
            raise InputError(f"The server does not continue a prompt of {len(ids)} tokens ({refused}).") from None

    def _choice(
        self,
        ids: tuple[int, ...],
        most: int,
        seed: int,
        sampling: Mapping[str, object],
        stop: Sequence[str] = (),
        *,
        trial: bool = False,
    ) -> Mapping[str, Any]:
        """The server's answer about the text after a prompt; empty if that cannot be read."""
        address, tokens = self._client.address, len(ids) + most
        ends = {"stop": [*stop]} if 0 < len(stop) <= MOST_STOPS else {}
        if self._native:
            sampled = {"max_new_tokens": most, **NEUTRAL, **sampling, **ends}
            content: dict[str, object] = {"input_ids": [*ids], "sampling_params": sampled}
            answer = self._client.post(f"{address.root}/generate", content, tokens, trial=trial)
            return answer if isinstance(answer, Mapping) else {}
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
            **ends,
        }
        answer = self._client.post(f"{address.base}/completions", content, tokens, trial=trial)
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        return choice if isinstance(choice, Mapping) else {}


def _tokens(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the tokens of a text; none if the server does not name them."""
    logprobs = choice.get("logprobs")
    named = named_ids(logprobs.get("tokens")) if isinstance(logprobs, Mapping) else None
    return _ids(choice.get("output_ids")) or _ids(choice.get("token_ids")) or tuple(named or ())


def _ids(found: Any) -> tuple[int, ...]:
    given: Sequence[Any] = found if isinstance(found, list) else ()
    return tuple(given) if all(type(one) is int for one in given) else ()


def generation_options(options: Mapping[str, object]) -> tuple[int, dict[str, object] | None]:
    """The number of new tokens, and options of the request that sample; ``None`` for a greedy text.

    Raises:
        InputError: an option is unknown, or has a value that it cannot have.
    """
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
        for name in ("temperature", "top_p"):
            if name in options:
                raise InputError(f"generate= has {name}={shown(options[name])}, which needs 'do_sample': True.")
        return count, None
    chosen = {name: options[name] for name in ("temperature", "top_p") if name in options}
    return count, {"temperature": 1.0, **chosen}
