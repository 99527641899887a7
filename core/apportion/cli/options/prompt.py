"""The prompt, and the features that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.options.command import NO_VALUE, in_panel

__all__ = ["PromptOptions"]

_option = in_panel("Features")


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """What is read as the prompt, and what its features are."""

    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The prompt, '-' to read it from stdin, or leave it out and use --prompt-file, --template or --chat.",
        ),
    ] = None
    prompt_file: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Read the prompt from this UTF-8 file. One line break at its end (and that of stdin) is not part of "
            "it.",
        ),
    ] = None
    input: Annotated[
        str | None,
        _option(
            metavar="NAME",
            help="Take the prompt for one of this type, which a plugin brings; see `apportion plugins`.",
        ),
    ] = None
    input_option: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME=VALUE",
            help="An option of that type; the value is read as JSON where it is JSON. Repeatable.",
        ),
    ] = ()
    by: Annotated[
        str | None,
        _option(
            metavar="UNIT",
            show_default="words; turns with --chat; documents with --document",
            help="Cut the prompt into words, tokens, sentences or paragraphs; a chat also into turns or roles.",
        ),
    ] = None
    text_baseline: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default="absent pieces are removed",
            help="What replaces an absent piece of the prompt.",
        ),
    ] = None
    baseline_id: Annotated[
        int | None, _option(metavar="ID", min=0, help="The same as a token id; with --by tokens.")
    ] = None
    keep: Annotated[
        tuple[str, ...],
        _option(metavar="TEXT", help="A piece of the prompt that is always present and gets no score. Repeatable."),
    ] = ()
    keep_index: Annotated[
        tuple[int, ...], _option(metavar="N", help="The same by its position from 0; -1 is the last. Repeatable.")
    ] = ()
    template: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            help="A prompt with slots, each a feature: '{name} lives in {city}'. Literal braces are written {{ and }}.",
        ),
    ] = None
    value: Annotated[
        tuple[str, ...], _option(metavar="SLOT=TEXT", help="What is in a slot: name=Dave. Once for each slot.")
    ] = ()
    baseline: Annotated[
        tuple[str, ...],
        _option(
            metavar="SLOT=TEXT",
            show_default="empty",
            help="What is in a slot whose feature is absent: name=Sarah. The same slot again adds an alternative, and "
            "results are averaged over them. 'city,state=Seattle,WA' changes slots together; a JSON list of texts "
            "does so for values with commas.",
        ),
    ] = ()
    group: Annotated[
        tuple[str, ...],
        _option(metavar="SLOT,SLOT", help="Slots that are one feature with one score: name,pronoun. Repeatable."),
    ] = ()
    draws: Annotated[
        int | None,
        _option(
            metavar="N",
            min=1,
            show_default="16",
            help="The most combinations of alternative baselines to average over.",
        ),
    ] = None
    chat: Annotated[
        str | None,
        _option(
            metavar="FILE.json",
            help="A conversation ('-' for stdin), written by the model's chat template: a list of messages with role "
            "and content, or an object with 'messages', 'tools' and other arguments of ap.Chat. The last turn of the "
            "user is kept unless something else is.",
        ),
    ] = None
    document: Annotated[
        tuple[Path, ...],
        _option(
            metavar="FILE",
            help="A document that the prompt is a question about; documents, or with --by pieces of them, are the "
            "features. Repeatable.",
        ),
    ] = ()
    layout: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default=r"Context: {context}\n\nQuery: {question}",
            help="Where documents and question stand in the prompt.",
        ),
    ] = None
    as_chat: Annotated[
        bool,
        _option(
            "--as-chat",
            metavar=NO_VALUE,
            help="Send documents and question as a user's message, in the model's chat template.",
        ),
    ] = False

    @property
    def kept(self) -> tuple[str | int, ...]:
        """What is always present."""
        return (*self.keep, *self.keep_index)

    @property
    def files(self) -> list[Path]:
        """What is read."""
        chat = [] if self.chat in (None, "-") else [Path(str(self.chat))]
        return [*([] if self.prompt_file is None else [self.prompt_file]), *chat, *self.document]
