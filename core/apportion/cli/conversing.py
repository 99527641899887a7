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
    arguments: dict[str, Any] = found if isinstance(found, dict) else {"messages": found}
    known = [field.name for field in fields(Chat) if field.name not in FLAGS]
    for name in arguments:
        if name not in known:
            raise unknown_name("part of a chat", name, known, f"It stands in {place}.")
    if "messages" not in arguments:
        raise InputError(f"The chat in {place} has no 'messages'.")
    return Chat(**arguments, by=options.by or "turns", baseline=options.text_baseline, keep=options.kept or None)


def message_prompt(text: str, options: PromptOptions) -> Chat:
    """A plain prompt as a user's message, whose pieces are the features.

    Raises:
        typer.BadParameter: the prompt is not cut into pieces of the message.
        InputError: the prompt cannot be attributed.
    """
    by = options.by or PIECES[0]
    if by not in PIECES:
        usage_error("--by", f"{by!r} does not cut the text of a message; write one of {listing(PIECES)}.")
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
        by=options.by or "documents",
        baseline=options.text_baseline,
        keep=options.kept,
        chat=options.as_chat,
        template=LAYOUT if options.layout is None else options.layout,
    )


def _named(source: str) -> str:
    return "stdin" if source == "-" else source
