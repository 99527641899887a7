"""A provider of a remote language model behind any server that apportion's backend ``openai`` reads."""

from __future__ import annotations

from typing import Any

import torch

from apportion.captum import prompt
from apportion.captum.provider import RemoteLLMProvider
from apportion.explainer import Explainer
from apportion.protocols.backend import GenerateSession
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.rendering.token_texts import added_text

__all__ = ["ServerProvider"]


class ServerProvider(RemoteLLMProvider):
    """A server of vLLM, SGLang or another engine that scores given tokens; not in Captum.

    With it, ``RemoteLLMAttribution`` sends the prompts of all coalitions in a few requests at once, as token ids.
    ``VLLMProvider`` sends one text after the other.

    Args:
        api_url: the server's address, such as ``"http://localhost:8000/v1"``.
        tokenizer: the model's tokenizer: an object, a hub id or a folder; ``None`` for the server's own.
        model_name: name of the model; ``None`` for the only one that the server has.
        options: further options of the backend, such as ``{"lanes": 16}``.

    Attributes:
        explainer: scores the prompts.

    Raises:
        ServerError: the server cannot be reached, or refuses the key.
        ModelError: it has no such model, or cannot score given tokens.
    """

    def __init__(
        self,
        api_url: str,
        tokenizer: Any = None,
        model_name: str | None = None,
        options: dict[str, object] | None = None,
    ) -> None:
        self.api_url = api_url
        self.explainer = Explainer(
            api_url,
            tokenizer=tokenizer,
            backend="openai",
            backend_options={"model": model_name, **(options or {})},
            plugins=[prompt],
            progress=False,
        )

    def generate(self, prompt: str, **gen_args: Any) -> str:
        """Return the text that continues a prompt.

        Raises:
            NotImplementedError: the server does not name the tokens that it writes.
            InputError: an option is unknown.
        """
        session = self.explainer.session
        if not isinstance(session, GenerateSession):
            raise NotImplementedError("The server does not name the tokens that it writes; give a target.")
        ids = tuple(session.tokenizer(prompt)["input_ids"])
        written = session.generate(ModelInput(ids), gen_args, 0)
        return added_text(session.tokenizer, [*ids, *written], len(ids), len(ids) + len(written))

    def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any = None) -> list[float]:
        """Return the log-probability of each token of a target after a prompt.

        Args:
            input_prompt: the prompt.
            target_str: the target, whose tokens are those that it has by itself.
            tokenizer: not needed; the provider has one.
        """
        cut: Any = self.explainer.session.tokenizer
        target = tuple(cut(target_str, add_special_tokens=False)["input_ids"])
        row = Row(tuple(cut(input_prompt)["input_ids"]), target)
        found = self.explainer.session.log_probs(ScoringBatch((row,)))
        numbers: list[float] = found[0].to(torch.float64).tolist()
        return numbers
