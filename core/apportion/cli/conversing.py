"""Chats and documents from the options of the command line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from apportion.cli.options.prompt import PromptOptions
from apportion.cli.parse import usage_error
from apportion.cli.reading import read_text, without_last_line_break
from apportion.errors import InputError, listing, unknown_name
from apportion.prompts.chat import Chat
from apportion.prompts.common import PIECES, repeated
from apportion.prompts.documents import LAYOUT, Documents

__all__ = ["chat_of", "chat_prompt", "documents_prompt", "message_prompt"]

FLAGS = ("by", "baseline", "keep")
"""Fields of a ``Chat`` that have flags; the others may stand in the file."""


def chat_prompt(source: str, options: PromptOptions) -> Chat:
    """The conversation in a JSON file, or on stdin (``-``): messages, or an object with messages and tools.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    text = read_text("chat", None if source == "-" else Path(source))
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The chat in {_named(source)} is not JSON: {error}.") from error
    return chat_of(found, _named(source), options)


def chat_of(found: Any, place: str, options: PromptOptions) -> Chat:
    """The conversation that JSON values hold: messages, or an object with messages and tools.

    Raises:
        InputError: they hold something else.
    """
    if not isinstance(found, list | dict):
        raise InputError(
            f"The chat in {place} must be a JSON list of messages, or an object with 'messages'; it is "
            f"{json.dumps(found):.60}."
        )
    arguments: dict[str, Any] = found if isinstance(found, dict) else {"messages": found}
    known = [field.name for field in fields(Chat) if field.name not in FLAGS]
    for name in arguments:
        if name not in known:
            raise unknown_name("part of a chat", name, known, f"It stands in {place}.")
    if "messages" not in arguments:
        raise InputError(f"The chat in {place} has no 'messages'.")
    by, baseline, keep = options.features or "turns", options.text_baseline, options.kept or None
    try:
        return Chat(**arguments, by=by, baseline=baseline, keep=keep)
    except InputError as error:
        raise InputError(f"The chat in {place}: {error}") from error


def message_prompt(text: str, options: PromptOptions) -> Chat:
    """A plain prompt as a user's message, whose pieces are the features.

    Raises:
        typer.BadParameter: the prompt is not cut into pieces of the message.
        InputError: the prompt cannot be attributed.
    """
    by = options.features or PIECES[0]
    if by not in PIECES:
        usage_error("--features", f"{by!r} does not cut the text of a message; write one of {listing(PIECES)}.")
    return Chat([{"role": "user", "content": text}], by=by, baseline=options.text_baseline, keep=options.kept)


def documents_prompt(question: str, options: PromptOptions) -> Documents:
    """A question about files, each named after its file.

    Raises:
        typer.BadParameter: a file is named twice.
        InputError: a file cannot be read or is empty.
    """
    names = [path.name for path in options.document]
    if len(set(names)) < len(names):
        names = [str(path) for path in options.document]
    twice = repeated(names)
    if twice is not None:
        usage_error("--document", f"{twice} is given twice; each document is one feature.")
    texts = [without_last_line_break(read_text("document", path)) for path in options.document]
    return Documents(
        question,
        dict(zip(names, texts, strict=True)),
        by=options.features or "documents",
        baseline=options.text_baseline,
        keep=options.kept,
        as_chat=options.as_chat,
        layout=LAYOUT if options.layout is None else options.layout,
    )


def _named(source: str) -> str:
    return "stdin" if source == "-" else source
