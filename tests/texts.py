"""Models behind chat APIs that write texts by a rule, and what was asked of them, for tests of text values."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import apportion as ap
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer
from apportion_backends.known_again import PROBE

__all__ = [
    "NUMBER",
    "PARIS",
    "PROMPT",
    "QUESTION",
    "SAMPLED",
    "asked",
    "explain",
    "here",
    "knows",
    "prompts_to",
    "unsure",
]

QUESTION = "What is the capital of France please"
PARIS: dict[str, Any] = {"target_fn": "regex", "target_options": {"pattern": "Paris"}}
PROMPT = "one two three four five"
SAMPLED: dict[str, Any] = {"generate": {"do_sample": True, "max_new_tokens": 6}}


def knows(prompt: str, content: Mapping[str, Any]) -> str:
    """A model that knows the capital of France."""
    return "It is Paris." if "capital" in prompt and "France" in prompt else "I do not know."


def unsure(prompt: str, content: Mapping[str, Any]) -> str:
    """A model that writes a number around 3 if there is a b, and around 1 if there is none."""
    mean = 3.0 if "b" in prompt.split() else 1.0
    noise = random.Random(f"{prompt} {content.get('seed')}").gauss(0, 1) if content.get("temperature") else 0.0
    return str(mean + noise)


def number(texts: Sequence[str], target: str) -> list[float]:
    return [float(text) for text in texts]


NUMBER: dict[str, Any] = {"target_fn": ap.TextValue(number)}


def explain(server: CompletionsServer, *, cache: Any = False, tokenizer: Any = None, **options: Any) -> ap.Explainer:
    return ap.Explainer(
        server.address,
        tokenizer=tokenizer,
        backend="openai",
        backend_options={"patience": 0.0, **options},
        cache=cache,
        progress=False,
    )


def here() -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False)


def asked(server: CompletionsServer, since: int = 0) -> list[Any]:
    """The requests for texts, without those by which the model is opened and known again."""
    sent = [one.content for one in server.received[since:] if one.path.endswith("completions")]
    return [content for content in sent if PROBE not in json.dumps(content) and "echo" not in content]


def prompts_to(server: CompletionsServer, since: int) -> list[str]:
    return [json.dumps(content["messages"]) for content in asked(server, since)]
