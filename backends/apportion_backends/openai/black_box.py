"""The ways to ask a server for texts alone: chat and completions APIs that score no given tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError
from apportion_backends.known_again import PROBE
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import BadAnswerError
from apportion_backends.openai.messages import Asked

__all__ = ["APIS", "BlackBox", "EmptyAnswerError", "Way", "black_box_of", "probed", "text_by"]

CHAT, COMPLETIONS = "chat", "completions"
APIS = (CHAT, COMPLETIONS)

PROBE_TOKENS = 16
ENDED = ("stop", "eos", "eos_token", "end_turn", "tool_calls", "function_call")
"""Values of ``finish_reason`` of a text that the model ended itself."""
PATHS: Mapping[str, str] = {CHAT: "/chat/completions", COMPLETIONS: "/completions"}


class EmptyAnswerError(Exception):
    """The server answered with an empty text that the model did not end; the message says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way to ask one API for a text.

    Attributes:
        api: ``"chat"`` or ``"completions"``.
        limit: name of the maximum number of tokens.
        greedy: options with which a text is greedy; ``None`` if the server refuses them, so that all texts are sampled.
    """

    api: str
    limit: str
    greedy: Mapping[str, object] | None

    def content(self, model: str, asked: Asked, most: int, sampling: Mapping[str, object] | None) -> dict[str, object]:
        """The content of a request.

        Args:
            model: the model's name.
            asked: the prompt.
            most: maximum number of tokens.
            sampling: options that sample; ``None`` for a greedy text.
        """
        how = (self.greedy or {}) if sampling is None else sampling
        content: dict[str, object] = {"model": model, self.limit: most, **how}
        if self.api == COMPLETIONS:
            return {**content, "prompt": asked.text}
        messages = asked.messages or ({"role": "user", "content": asked.text},)
        return {**content, "messages": [*messages], **({"tools": [*asked.tools]} if asked.tools else {})}


WAYS = (
    Way(COMPLETIONS, "max_tokens", {"temperature": 0.0}),
    Way(CHAT, "max_tokens", {"temperature": 0.0}),
    Way(CHAT, "max_completion_tokens", {"temperature": 0.0}),
    Way(CHAT, "max_completion_tokens", None),
)
"""The ways that are tried, in order; of each API the first that works is taken."""


@dataclass(frozen=True, slots=True)
class BlackBox:
    """The way in which a server writes texts.

    Attributes:
        ways: how each of its APIs is asked.
        probe: its greedy text after ``PROBE``, by which the model is known again; ``None`` if it is not the same each
            time.
        notes: sentences for results.
    """

    ways: Mapping[str, Way]
    probe: str | None
    notes: tuple[str, ...]

    def way(self, asked: Asked) -> Way:
        """The way to ask for what follows a prompt: messages need the chat API, and texts go to completions first.

        Raises:
            InputError: the server has no API for messages.
        """
        if asked.messages and CHAT not in self.ways:
            raise InputError("The server does not chat: it only continues texts. Use ap.Text or ap.Template.")
        if asked.messages or COMPLETIONS not in self.ways:
            return self.ways[CHAT]
        return self.ways[COMPLETIONS]


def black_box_of(client: Client, model: str, api: str | None) -> tuple[BlackBox | None, list[str]]:
    """Find the ways in which a server writes texts.

    Args:
        client: sends requests.
        model: the model's name.
        api: ``"chat"`` or ``"completions"`` to try that one only.

    Returns:
        The ways, or ``None`` if there is none; and the answers to those that do not work.

    Raises:
        ServerError: the server cannot be reached, or refuses the key.
    """
    ways: dict[str, Way] = {}
    texts: dict[str, str | None] = {}
    reasons: list[str] = []
    for way in WAYS:
        if way.api in ways or (api is not None and way.api != api):
            continue
        try:
            texts[way.api] = text_by(
                client, way, way.content(model, Asked(text=PROBE), PROBE_TOKENS, None), PROBE_TOKENS, trial=True
            )
        except RefusedError as refused:
            reasons.append(f"{way.api}: refused with {refused}")
        except BadAnswerError as error:
            reasons.append(f"{way.api}: answered with {client.quoted(str(error))}")
        except EmptyAnswerError:  # a model that thinks first answers, but not in so few tokens
            ways[way.api], texts[way.api] = way, None
        else:
            ways[way.api] = way
    if not ways:
        return None, reasons
    first = next(iter(ways.values()))
    return _measured(client, model, ways, first, texts[first.api]), reasons


def text_by(client: Client, way: Way, content: Mapping[str, object], most: int, *, trial: bool = False) -> str:
    """The text that a server answers.

    Args:
        client: sends the request.
        way: the way that the content was made for.
        content: the content.
        most: maximum number of tokens, for the limits.
        trial: as ``Client.post``.

    Raises:
        RefusedError: the server refuses the content.
        BadAnswerError: the answer has no text.
        EmptyAnswerError: the text is empty, but the model did not end it.
        ServerError: the server cannot be reached, refuses the key, or a limit is reached.
    """
    words = len(json.dumps(content.get("messages", content.get("prompt")), ensure_ascii=False)) // 3
    answer = client.post(client.address.base + PATHS[way.api], content, words + most, trial=trial)
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        raise BadAnswerError("no choice")
    text = choice.get("text") if way.api == COMPLETIONS else _of_message(choice.get("message"))
    if not isinstance(text, str):
        raise BadAnswerError(f"a choice without a text: {json.dumps(choice)[:100]}")
    reason = choice.get("finish_reason")
    if not text and reason == "length":
        raise EmptyAnswerError("the limit of tokens was spent before it began, as by thoughts; raise max_new_tokens")
    if not text and reason not in (None, *ENDED):
        raise EmptyAnswerError(f"its finish_reason is {client.quoted(str(reason))!r}")
    return text


def _of_message(message: Any) -> str | None:
    """The text of a message, and its tool calls as JSON."""
    if not isinstance(message, Mapping):
        return None
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    parts = [content] if isinstance(content, str) and content else []
    if isinstance(calls, list) and calls:
        named = [call["function"] for call in calls if isinstance(call, Mapping) and call.get("function")]
        if len(named) < len(calls):
            return None
        parts.append(json.dumps(named[0] if len(named) == 1 else named, ensure_ascii=False))
    if isinstance(message.get("function_call"), Mapping):  # before there were tools
        parts.append(json.dumps(message["function_call"], ensure_ascii=False))
    if not parts and isinstance(message.get("refusal"), str):
        parts.append(str(message["refusal"]))
    return "\n".join(parts)


def _measured(client: Client, model: str, ways: Mapping[str, Way], way: Way, text: str | None) -> BlackBox:
    """Ask once more, to see whether a greedy text is the same each time."""
    if way.greedy is None:
        note = "the server refuses temperature 0, so that all its texts are drawn at random; samples= shows the noise"
        return BlackBox(ways, None, (note,))
    if text is not None and probed(client, model, way) == text:
        return BlackBox(ways, text, ())
    what = "wrote nothing in a few tokens" if text is None else "writes other greedy texts from time to time"
    note = (
        f"the server {what}, so that a model of the same name with other weights would not be noticed; texts count as "
        "sampled, and samples= shows the noise"
    )
    return BlackBox(ways, None, (note,))


def probed(client: Client, model: str, way: Way) -> str | None:
    """The greedy text after a fixed prompt; ``None`` if the server gives none.

    Raises:
        ServerError: the server does not answer.
    """
    content = way.content(model, Asked(text=PROBE), PROBE_TOKENS, None)
    try:
        return text_by(client, way, content, PROBE_TOKENS, trial=True)
    except (RefusedError, BadAnswerError, EmptyAnswerError):
        return None
