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
    """The prompt: a text, a template, a chat or a question about documents, with pictures or without; its features."""

    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The prompt; '-' reads it from stdin. Leave it out to use --prompt-file, --template or --chat.",
        ),
    ] = None
    prompt_file: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Read the prompt from this UTF-8 file. A single line break at the end is dropped, as it is from "
            "stdin.",
        ),
    ] = None
    input: Annotated[
        str | None,
        _option(
            metavar="NAME",
            help="Type of the prompt, as a plugin names it; see `apportion plugins`.",
        ),
    ] = None
    input_option: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME=VALUE",
            help="Option of that type. Values are read as JSON or else as text. Repeatable.",
        ),
    ] = ()
    features: Annotated[
        str | None,
        _option(
            "--features",
            "--by",
            metavar="KIND",
            show_default="words; turns with --chat; documents with --document",
            help="Features to cut the prompt into: words, tokens, sentences, lines or paragraphs; for a chat also "
            "turns or roles; beside pictures also none.",
        ),
    ] = None
    text_baseline: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default="absent features are removed",
            help="Text that replaces an absent feature of the prompt.",
        ),
    ] = None
    baseline_id: Annotated[
        int | None, _option(metavar="ID", min=0, help="The same, as a token id; needs --features tokens.")
    ] = None
    keep: Annotated[
        tuple[str, ...],
        _option(metavar="TEXT", help="Text of a feature that is always present and gets no score. Repeatable."),
    ] = ()
    keep_index: Annotated[
        tuple[int, ...], _option(metavar="N", help="The same, by its position from 0; -1 is the last. Repeatable.")
    ] = ()
    template: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            help="Prompt with slots, each a feature: '{name} lives in {city}'. Write literal braces as {{ and }}.",
        ),
    ] = None
    value: Annotated[
        tuple[str, ...], _option(metavar="SLOT=TEXT", help="Text in a slot: name=Dave. Repeat it for each slot.")
    ] = ()
    baseline: Annotated[
        tuple[str, ...],
        _option(
            metavar="SLOT=TEXT",
            show_default="empty",
            help="Text in a slot whose feature is absent: name=Sarah. Repeat a slot to add alternatives; results are "
            "averaged over them. 'city,state=Seattle,WA' changes slots together; write a JSON list where the values "
            "have commas.",
        ),
    ] = ()
    group: Annotated[
        tuple[str, ...],
        _option(metavar="SLOT,SLOT", help="Slots that form one feature with one score: name,pronoun. Repeatable."),
    ] = ()
    draws: Annotated[
        int | None,
        _option(
            metavar="N",
            min=1,
            show_default="16",
            help="Maximum number of combinations of alternative baselines to average over.",
        ),
    ] = None
    chat: Annotated[
        str | None,
        _option(
            metavar="FILE.json",
            help="Conversation ('-' for stdin), written with the model's chat template: a list of messages with role "
            "and content, or an object with 'messages', 'tools' and other arguments of ap.Chat. With features "
            "turns or roles, the user's last turn is kept, unless --keep or --keep-index names something else.",
        ),
    ] = None
    document: Annotated[
        tuple[Path, ...],
        _option(
            metavar="FILE",
            help="Document that the prompt asks about. The features are the documents, or with --features pieces of "
            "them. Repeatable.",
        ),
    ] = ()
    layout: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default=r"Context: {context}\n\nQuery: {question}",
            help="Layout of the documents and the question in the prompt.",
        ),
    ] = None
    as_chat: Annotated[
        bool,
        _option(
            "--as-chat",
            metavar=NO_VALUE,
            help="Send PROMPT, with its documents if there are any, as a user message in the model's chat template, as "
            "models trained for chat need.",
        ),
    ] = False

    image: Annotated[
        tuple[Path, ...],
        _option(
            metavar="FILE",
            help="Picture that the model reads with the prompt: before it, or where a template or chat has places for "
            "pictures. Its regions are features. Repeatable.",
        ),
    ] = ()
    segments: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME:VALUES",
            show_default="grid:4x4",
            help="Regions of the pictures: grid:4x4, slic:40, patches, none, or those of a plugin; see `apportion "
            "segmenters`. Given once, it holds for all pictures; else once for each.",
        ),
    ] = ()
    fill: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="mean",
            help="What replaces absent regions: mean, local_mean, blur, noise, inpaint, a colour ('#808080'), or the "
            "file of another picture; see `apportion fills`.",
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        _option(metavar="N", min=1, show_default="50000000", help="Pixels of the largest picture that is read."),
    ] = None

    @property
    def kept(self) -> tuple[str | int, ...]:
        """Pieces that are always present, by text or position."""
        return (*self.keep, *self.keep_index)

    @property
    def files(self) -> list[Path]:
        """Files to read."""
        chat = [] if self.chat in (None, "-") else [Path(str(self.chat))]
        return [*([] if self.prompt_file is None else [self.prompt_file]), *chat, *self.document, *self.image]
