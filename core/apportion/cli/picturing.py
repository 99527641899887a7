"""Pictures from the options of the command line, around the prompt that the other options describe."""

from __future__ import annotations

from typing import Any

from apportion.cli.options.prompt import PromptOptions
from apportion.cli.parse import usage_error
from apportion.errors import counted
from apportion.prompts.chat import Chat
from apportion.prompts.image_text import ImageText
from apportion.prompts.template import Template
from apportion.prompts.text import Text

__all__ = ["NONE", "check_picture_options", "with_pictures"]

NONE = "none"
"""Value of ``--segments`` and ``--features`` for no features of pictures, or of the text."""


def check_picture_options(options: PromptOptions) -> None:
    """Refuse options of pictures without a picture, and prompts that hold none.

    Raises:
        typer.BadParameter: options do not go together.
    """
    given = {"--segments": options.segments, "--fill": options.fill, "--max-pixels": options.max_pixels}
    if not options.image:
        for flag, value in given.items():
            if value not in (None, ()):
                usage_error(flag, "this is for pictures, and there is no --image.")
        if options.features == NONE:
            usage_error("--features", "'none' leaves nothing to attribute to without an --image.")
        return
    for flag, other in (("--document", options.document), ("--as-chat", options.as_chat), ("--input", options.input)):
        if other:
            hint = " A PROMPT beside pictures is a user's message anyway." if flag == "--as-chat" else ""
            usage_error(flag, f"it does not go together with --image.{hint}")
    if len(options.segments) not in (0, 1, len(options.image)):
        usage_error(
            "--segments",
            f"it is given {len(options.segments)} times for {counted(len(options.image), 'picture')}; give it once, or "
            "once for each.",
        )


def with_pictures(prompt: str | Text | Template | Chat, options: PromptOptions) -> object:
    """The prompt with the pictures that the options name; the prompt itself if they name none.

    Raises:
        InputError: nothing is left to attribute to.
    """
    if not options.image:
        return prompt
    segments = [None if name == NONE else name for name in options.segments] or ["grid:4x4"]
    text_by = {"text_by": None} if isinstance(prompt, str) else {}
    max_pixels = {} if options.max_pixels is None else {"max_pixels": options.max_pixels}
    more: dict[str, Any] = {**text_by, **max_pixels}
    return ImageText(
        [str(path) for path in options.image],
        prompt,
        segments=segments[0] if len(segments) == 1 else segments,
        fill="mean" if options.fill is None else options.fill,
        **more,
    )
