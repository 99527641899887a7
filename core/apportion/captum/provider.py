"""Providers of remote language models that return log-probabilities."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["RemoteLLMProvider", "VLLMProvider"]


class RemoteLLMProvider(ABC):
    """A remote language model; subclass it for yours.

    Attributes:
        api_url: its address.
    """

    api_url: str

    @abstractmethod
    def generate(self, prompt: str, **gen_args: Any) -> str:
        """Return the text that continues a prompt."""

    @abstractmethod
    def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any = None) -> list[float]:
        """Return the log-probability of each token of a target after a prompt."""


class VLLMProvider(RemoteLLMProvider):
    """A server of vLLM, by its OpenAI-compatible interface; ``OPENAI_API_KEY`` is its key, if it needs one.

    Args:
        api_url: the server's address, such as ``"http://localhost:8000/v1"``.
        model_name: name of the model; ``None`` for the first one that the server has.

    Raises:
        ImportError: the package ``openai`` is not installed.
        ValueError: the address is empty, or the server has no model.
        ConnectionError: the server cannot be reached.
    """

    def __init__(self, api_url: str, model_name: str | None = None) -> None:
        try:
            from openai import OpenAI  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise ImportError(
                "The 'openai' package is required to use the VLLMProvider. Install it: pip install openai"
            ) from error
        if not api_url.strip():
            raise ValueError("API URL is required")
        self.api_url = api_url
        try:
            self.client = OpenAI(base_url=api_url, api_key=os.getenv("OPENAI_API_KEY", "EMPTY"))
            self.model_name = self._first_model() if model_name is None else model_name
        except ValueError:
            raise
        except Exception as error:
            raise _translated(error, "initializing vLLM provider") from error

    def _first_model(self) -> str:
        models = self.client.models.list().data
        if not models:
            raise ValueError("No models available from the vLLM API")
        return str(models[0].id)

    def generate(self, prompt: str, **gen_args: Any) -> str:
        """Return the text that continues a prompt.

        Args:
            prompt: the prompt.
            **gen_args: arguments of the server; ``max_new_tokens`` (25 by default) becomes ``max_tokens``, and
                ``do_sample`` has no effect.

        Raises:
            KeyError: the answer has no text.
            ConnectionError: the server cannot be reached.
        """
        gen_args.setdefault("max_tokens", gen_args.pop("max_new_tokens", 25))
        gen_args.pop("max_new_tokens", None)
        gen_args.pop("do_sample", None)
        try:
            response = self.client.completions.create(model=self.model_name, prompt=prompt, **gen_args)
        except Exception as error:
            raise _translated(error, "text generation") from error
        return str(_choice(response).text)

    def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any = None) -> list[float]:
        """Return the log-probability of each token of a target after a prompt.

        Args:
            input_prompt: the prompt.
            target_str: the target.
            tokenizer: counts the target's tokens.

        Raises:
            ValueError: there is no tokenizer or target, or the server returned too few numbers.
            KeyError, IndexError: the answer has no log-probabilities, or of another form.
            ConnectionError: the server cannot be reached.
        """
        if tokenizer is None:
            raise ValueError("Tokenizer is required for vLLM provider")
        if not target_str:
            raise ValueError("Target string cannot be empty")
        count = len(tokenizer.encode(target_str, add_special_tokens=False))
        try:
            response = self.client.completions.create(
                model=self.model_name,
                prompt=input_prompt + target_str,
                temperature=0.0,
                max_tokens=1,
                extra_body={"prompt_logprobs": 0},
            )
        except Exception as error:
            raise _translated(error, "getting log probabilities") from error
        rows = getattr(_choice(response), "prompt_logprobs", None)
        if not rows:
            raise KeyError("API response missing 'prompt_logprobs' data")
        found = [_log_prob(row) for row in rows[-count:]]
        if len(found) != count:
            raise ValueError(f"Not enough logprobs received: expected {count}, got {len(found)}")
        return found


def _choice(response: Any) -> Any:
    if not getattr(response, "choices", None):
        raise KeyError("API response missing expected 'choices' data")
    return response.choices[0]


def _log_prob(row: Any) -> float:
    """The number in ``{token id: {"logprob": number}}``, as a dict or an object."""
    if not row:
        raise ValueError("Empty probability data in API response")
    entries = list(row.values())
    if len(entries) != 1:
        raise IndexError(f"Unexpected format in log probability data: {len(entries)} tokens where there should be one")
    try:
        return float(entries[0]["logprob"] if isinstance(entries[0], dict) else entries[0].logprob)
    except (KeyError, AttributeError, TypeError) as error:
        raise IndexError(f"Unexpected format in log probability data: {error}") from error


def _translated(error: Exception, what: str) -> Exception:
    """A ``ConnectionError`` if the server cannot be reached, of this language or of the client's."""
    unreachable = isinstance(error, ConnectionError) or "Connection" in type(error).__name__
    if unreachable:
        return ConnectionError(f"Failed to connect to vLLM API when {what}: {error}")
    return Exception(f"Unexpected error while {what}: {error}")
