"""The answers of inference engines, as far as apportion asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ENGINES", "Engine", "Serving"]

Answer = tuple[int, Any]


class Serving(Protocol):
    """The parts of a server that answers need; see ``CompletionsServer``."""

    name: str
    tokenizer: PreTrainedTokenizerBase | None
    context_length: int | None
    keeps_prefixes: bool

    def scores(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of all tokens but the first of each prompt."""
        ...

    def written(self, ids: Sequence[int], content: Mapping[str, Any]) -> tuple[int, ...]:
        """The tokens that follow a prompt, by the options of a request."""
        ...

    def text(self, prompt: str, content: Mapping[str, Any]) -> str:
        """The text that follows another one."""
        ...

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        ...

    def ids_of(self, text: str) -> list[int]:
        """The tokens of a text."""
        ...


class Engine(Protocol):
    """Answers requests in the form of an engine."""

    def answer(self, server: Serving, path: str, content: Any) -> Answer:
        """Status and content of the answer to a request."""
        ...


class _Common:
    """The list of models, completions, and errors; subclasses fill choices."""

    owner = "somebody"

    def answer(self, server: Serving, path: str, content: Any) -> Answer:
        """Answer by path."""
        if path == "/v1/models":
            model = {"id": server.name, "object": "model", "owned_by": self.owner, "root": server.name}
            length = {} if server.context_length is None else {"max_model_len": server.context_length}
            return 200, {"object": "list", "data": [{**model, **length}]}
        if path in ("/tokenize", "/detokenize") and server.tokenizer is not None:
            return 200, _tokens(server, path, content)
        if path == "/metrics" and server.keeps_prefixes:
            return 200, 'vllm:cache_config_info{block_size="16",enable_prefix_caching="True"} 1.0'
        if path == "/v1/completions":
            return self._completions(server, content)
        return 404, {"detail": "Not Found"}

    def _completions(self, server: Serving, content: Mapping[str, Any]) -> Answer:
        if content.get("model") != server.name:
            return 404, _error(f"The model `{content.get('model')}` does not exist.")
        prompts = _prompts(server, content["prompt"])
        longest = max(len(ids) for ids in prompts) + int(content.get("max_tokens", 16))
        if server.context_length is not None and longest > server.context_length:
            return 400, _error(f"This model's maximum context length is {server.context_length} tokens, not {longest}.")
        choices = [{"index": i, **self.choice(server, ids, content)} for i, ids in enumerate(prompts)]
        read = sum(map(len, prompts))
        usage = {"prompt_tokens": read, "total_tokens": read + len(prompts) * int(content.get("max_tokens", 16))}
        # Engines that answer in the order in which prompts are done are not rare.
        return 200, {"object": "text_completion", "model": server.name, "choices": choices[::-1], "usage": usage}

    def choice(self, server: Serving, ids: Sequence[int], content: Mapping[str, Any]) -> dict[str, Any]:
        """The text that is written after one prompt."""
        written = server.written(ids, content)
        return {
            "text": server.decoded(written),
            "finish_reason": "length",
            "logprobs": None,
            **self.ids(written, content),
        }

    def ids(self, written: Sequence[int], content: Mapping[str, Any]) -> dict[str, Any]:
        """The ids of what is written, if the engine names them."""
        return {}


class _VLLM(_Common):
    owner = "vllm"

    def choice(self, server: Serving, ids: Sequence[int], content: Mapping[str, Any]) -> dict[str, Any]:
        """With ``prompt_logprobs``: the token itself, and the likeliest one where that is another."""
        if content.get("logprob_token_ids") is not None:
            scores = [server.scores([[*ids, token]])[0][-1] for token in content["logprob_token_ids"]]
            named = {f"token_id:{t}": s for t, s in zip(content["logprob_token_ids"], scores, strict=True)}
            return {"text": "", "logprobs": {"tokens": ["token_id:1"], "top_logprobs": [{"token_id:1": -0.1, **named}]}}
        if content.get("prompt_logprobs") is None:
            return super().choice(server, ids, content)
        (scores,) = server.scores([ids])
        entries: list[Any] = [None]
        for token, score in zip(ids[1:], scores, strict=True):
            other = {str(token + 1): {"logprob": -0.1, "rank": 1}} if score < -1 else {}
            entries.append({str(token): {"logprob": score, "rank": 2, "decoded_token": "?"}, **other})
        return {"text": "", "finish_reason": "length", "prompt_logprobs": entries}

    def ids(self, written: Sequence[int], content: Mapping[str, Any]) -> dict[str, Any]:
        """``token_ids``, if they are asked for."""
        return {"token_ids": [*written]} if content.get("return_token_ids") else {}


class _OpenAI(_Common):
    owner = "openai"

    def choice(self, server: Serving, ids: Sequence[int], content: Mapping[str, Any]) -> dict[str, Any]:
        """With ``echo`` and ``logprobs``: the prompt's tokens and the written one."""
        if not content.get("echo"):
            return super().choice(server, ids, content)
        (scores,) = server.scores([ids])
        numbers = [None, *scores, -0.5]
        return {
            "text": "?",
            "finish_reason": "length",
            "logprobs": {"token_logprobs": numbers, "tokens": ["?"] * len(numbers)},
        }


class _SGLang(_Common):
    owner = "sglang"

    def answer(self, server: Serving, path: str, content: Any) -> Answer:
        """``/generate`` beside the rest."""
        if path != "/generate":
            return super().answer(server, path, content)
        given = content["input_ids"]
        prompts = given if isinstance(given[0], list) else [given]
        answers: list[dict[str, Any]] = []
        for i, ids in enumerate(prompts):
            meta: dict[str, Any] = {"prompt_tokens": len(ids)}
            if content.get("return_logprob"):
                (scores,) = server.scores([ids])
                start = content["logprob_start_len"][i]
                numbers = [None, *scores[start:]]
                meta["input_token_logprobs"] = [[n, t, None] for n, t in zip(numbers, ids[start:], strict=True)]
                answers.append({"text": "", "meta_info": meta})
            else:
                written = server.written(ids, _like_openai(content["sampling_params"]))
                text = server.decoded(written)
                answers.append({"text": text, "output_ids": [*written], "meta_info": meta})
        return 200, answers if isinstance(given[0], list) else answers[0]


class _Chat(_Common):
    """Messages alone."""

    def answer(self, server: Serving, path: str, content: Any) -> Answer:
        """``/chat/completions`` in place of ``/completions``."""
        if path == "/v1/completions":
            return 404, {"detail": "Not Found"}
        if path != "/v1/chat/completions":
            return super().answer(server, path, content)
        if content.get("model") != server.name:
            return 404, _error(f"The model `{content.get('model')}` does not exist.")
        lines = "".join(f"{message['role']}: {message.get('content')}\n" for message in content["messages"])
        message = {"role": "assistant", "content": server.text(lines, content)}
        usage = {"prompt_tokens": len(lines), "total_tokens": len(lines) + 1}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


class _Text(_Common):
    """Texts alone: token ids and log-probabilities are refused."""

    def _completions(self, server: Serving, content: Mapping[str, Any]) -> Answer:
        if not isinstance(content["prompt"], str) or content.get("logprobs") is not None:
            return 400, _error("prompt must be a string, and logprobs are not supported")
        choice = {"index": 0, "text": server.text(content["prompt"], content), "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"total_tokens": len(content["prompt"])}}


ENGINES: Mapping[str, Engine] = {
    "vllm": _VLLM(),
    "openai": _OpenAI(),
    "sglang": _SGLang(),
    "chat": _Chat(),
    "text": _Text(),
}


def _like_openai(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """SGLang's parameters by the names of OpenAI's."""
    return {**sampling, "max_tokens": sampling["max_new_tokens"]}


def _prompts(server: Serving, given: Any) -> list[list[int]]:
    """Prompts as ids: one or several, as ids or texts."""
    several = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    return [server.ids_of(one) if isinstance(one, str) else [*one] for one in several]


def _tokens(server: Serving, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = server.tokenizer
    assert tokenizer is not None
    if path == "/detokenize":
        return {"prompt": tokenizer.decode(content["tokens"])}
    ids = tokenizer(content["prompt"], add_special_tokens=content.get("add_special_tokens", True))["input_ids"]
    return {"tokens": list(ids), "count": len(ids)}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}
