"""The prompt that the options describe: a ``Text``, a ``Template``, a ``Chat`` or ``Documents``; pictures around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.cli.conversing import chat_prompt, documents_prompt, message_prompt
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.parse import json_or_text, pair, split_names, usage_error
from apportion.cli.picturing import NONE, check_picture_options, with_pictures
from apportion.cli.plugin_input import plugin_prompt
from apportion.cli.reading import check_named, read_text, without_last_line_break
from apportion.errors import InputError, listing
from apportion.prompts.chat import CHAT_CUTS
from apportion.prompts.common import PIECES as PIECES_OF_TEXTS
from apportion.prompts.template import Template
from apportion.prompts.text import Text

__all__ = ["build_prompt", "plain_text"]

PIECES = "words"
"""Features of a plain prompt without ``--features``."""


def build_prompt(options: PromptOptions, text: str | None = None) -> object:
    """The prompt that the options describe, or what a plugin's input makes of a text.

    Args:
        options: options of the prompt.
        text: the prompt itself, if it does not come from the options.

    Raises:
        typer.BadParameter: options do not go together.
        InputError: the prompt cannot be attributed, or a file cannot be read.
    """
    for flag, path in (("--prompt-file", options.prompt_file), ("--chat", options.chat)):
        check_named(flag, path)
    for path in options.document:
        check_named("--document", path)
    for path in options.image:
        check_named("--image", path)
    check_picture_options(options)
    source = _source(options, text)
    _check_documents(options, source)
    _check_message(options, source)
    if options.input is not None:
        _check_input(options, options.input)
        return plugin_prompt(options.input, _text(options, text), options.input_option)
    if options.chat is not None:
        _check_parts(options, "--chat")
        return with_pictures(chat_prompt(options.chat, options), options)
    if options.document:
        _check_parts(options, "--document")
        return documents_prompt(_text(options, text), options)
    if options.as_chat:
        _check_parts(options, "--as-chat")
        return message_prompt(_text(options, text), options)
    if options.template is not None:
        return with_pictures(_template(options, options.template), options)
    _check_plain(options)
    if options.image and (options.features == NONE or not _text(options, text).strip()):
        return with_pictures(_text(options, text), options)
    if options.features in CHAT_CUTS and options.features not in PIECES_OF_TEXTS:
        raise InputError(
            f"--features {options.features} is for a conversation (--chat), and this prompt is a text. Choose one of "
            f"{listing((*PIECES_OF_TEXTS, 'tokens'))}."
        )
    baseline = options.text_baseline if options.baseline_id is None else options.baseline_id
    made = Text(_text(options, text), by=options.features or PIECES, baseline=baseline, keep=options.kept)
    return with_pictures(made, options)


def plain_text(options: PromptOptions, flag: str) -> str:
    """The text of a plain prompt, of which only ``--features`` may be given.

    Args:
        options: options of the prompt.
        flag: the flag that needs a plain prompt, for messages.

    Raises:
        typer.BadParameter: the prompt is of another type, or is missing.
        InputError: its file cannot be read.
    """
    check_named("--prompt-file", options.prompt_file)
    source = _source(options, None)
    given = {
        source: source not in ("PROMPT", "--prompt-file"),
        "--document": bool(options.document),
        "--as-chat": options.as_chat,
        "--input": options.input is not None,
        "--text-baseline": options.text_baseline is not None,
        "--baseline-id": options.baseline_id is not None,
        "--keep": bool(options.keep),
        "--keep-index": bool(options.keep_index),
        "--image": bool(options.image),
    }
    for name, is_given in given.items():
        if is_given:
            usage_error(name, f"{flag} is given too, which is for a plain PROMPT or --prompt-file.")
    return _text(options, None)


def _source(options: PromptOptions, text: str | None) -> str:
    """The one flag that gives the prompt."""
    given = {
        "PROMPT": options.prompt if text is None else text,
        "--prompt-file": options.prompt_file,
        "--template": options.template,
        "--chat": options.chat,
    }
    named = [name for name, value in given.items() if value is not None]
    if not named and options.document:
        usage_error("PROMPT", "the question about the documents is missing; give it as PROMPT or --prompt-file.")
    if not named and options.image:
        return "PROMPT"  # a picture alone
    if not named:
        usage_error("PROMPT", "there is no prompt; give a PROMPT ('-' for stdin), --prompt-file, --template or --chat.")
    if len(named) > 1:
        usage_error(named[-1], f"{' and '.join(named)} are given; a run has only one prompt.")
    if options.input_option and options.input is None:
        usage_error(
            "--input-option", f"{options.input_option[0]!r} is an option of a prompt type, and there is no --input."
        )
    return named[0]


def _text(options: PromptOptions, text: str | None) -> str:
    """The text of a prompt that is neither a template nor a chat."""
    if text is not None:
        return text
    if options.prompt_file is not None or options.prompt == "-":
        return without_last_line_break(read_text("prompt", options.prompt_file))
    return options.prompt or ""


def _check_documents(options: PromptOptions, source: str) -> None:
    if not options.document:
        if options.layout is not None:
            usage_error("--layout", "this is for documents, and there is no --document.")
    elif source not in ("PROMPT", "--prompt-file"):
        usage_error("--document", f"{source} is given too; the question about documents is PROMPT or --prompt-file.")


def _check_message(options: PromptOptions, source: str) -> None:
    if options.as_chat and (options.input is not None or source not in ("PROMPT", "--prompt-file")):
        given = source if options.input is None else "--input"
        usage_error("--as-chat", f"{given} is given; this is for a PROMPT or --prompt-file, with documents or without.")


def _check_input(options: PromptOptions, name: str) -> None:
    """Refuse options that do not fit a plugin's type of prompt."""
    for flag, own, what in (
        ("--template", options.template, "a template is an input of its own"),
        ("--chat", options.chat, "a chat is an input of its own"),
        ("--document", options.document or None, "documents are an input of their own"),
    ):
        if own is not None:
            usage_error("--input", f"{flag} is given too; {what}.")
    for flag, given in (_for_texts(options) | _for_templates(options)).items():
        if given:
            usage_error(
                flag,
                f"this is for plain prompts and templates; write options of {name!r} as --input-option NAME=VALUE.",
            )


def _check_parts(options: PromptOptions, what: str) -> None:
    """Refuse options that do not fit a conversation, or a question about documents."""
    for name, given in _for_templates(options).items():
        if given:
            hint = " Use --text-baseline to replace absent features." if name == "--baseline" else ""
            usage_error(name, f"{given[0]!r} is for slots, and the features are those of {what}.{hint}")
    if options.baseline_id is not None:
        usage_error("--baseline-id", f"a token id can only replace a token; use --text-baseline with {what}.")


def _check_plain(options: PromptOptions) -> None:
    """Refuse options that do not fit a plain prompt."""
    for name, given in _for_templates(options).items():
        if given:
            hint = " Use --text-baseline to replace absent pieces of a plain prompt." if name == "--baseline" else ""
            usage_error(name, f"{given[0]!r} is for slots, and there is no --template.{hint}")
    if options.text_baseline is not None and options.baseline_id is not None:
        usage_error("--baseline-id", "--text-baseline is given too; leave one of them out.")
    by = options.features or PIECES
    if options.baseline_id is not None and by != "tokens":
        usage_error(
            "--baseline-id",
            f"a token id can only replace a token, and the prompt is cut into {by}; add --features tokens.",
        )


def _for_texts(options: PromptOptions) -> dict[str, object]:
    return {
        "--features": options.features,
        "--text-baseline": options.text_baseline,
        "--baseline-id": options.baseline_id,
        "--keep": list(options.keep) or None,
        "--keep-index": list(options.keep_index) or None,
    }


def _for_templates(options: PromptOptions) -> dict[str, Sequence[str]]:
    draws = () if options.draws is None else (str(options.draws),)
    return {"--value": options.value, "--baseline": options.baseline, "--group": options.group, "--draws": draws}


def _template(options: PromptOptions, template: str) -> Template:
    for name, given in _for_texts(options).items():
        if given is not None:
            usage_error(name, f"{given!r} is for plain prompts; the features of a --template are its slots.")
    values: dict[str, str] = {}
    for text in options.value:
        slot, value = pair("--value", text, "name=Dave")
        if slot in values:
            usage_error("--value", f"the slot {slot!r} is given twice: {values[slot]!r} and {value!r}.")
        values[slot] = value
    if not values:
        usage_error("--value", "a --template needs values for its slots; write --value name=Dave.")
    return Template(
        template,
        values=_positional(values),
        baselines=_baselines(options.baseline) or None,
        groups=[split_names("--group", text, "name,pronoun") for text in options.group],
        **({} if options.draws is None else {"draws": options.draws}),
    )


def _positional(values: Mapping[str, str]) -> Mapping[str, str] | list[str]:
    """Values of slots; a list for ``--value 0=… --value 1=…``, which fill ``{}`` or ``{0}``."""
    numbers = [str(i) for i in range(len(values))]
    return [values[number] for number in numbers] if set(values) == set(numbers) else values


def _baselines(texts: Sequence[str]) -> dict[str | tuple[str, ...], object]:
    """Alternatives of each slot, or of each set of slots that change together."""
    found: dict[str | tuple[str, ...], list[Any]] = {}
    for text in texts:
        left, value = pair("--baseline", text, "name=Sarah")
        slots = split_names("--baseline", left, "city,state=Seattle,WA")
        if len(slots) == 1:
            found.setdefault(slots[0], []).append(value)
        else:
            found.setdefault(slots, []).append(_joint_choice(slots, value))
    return dict(found)


def _joint_choice(slots: tuple[str, ...], value: str) -> tuple[str, ...]:
    """The texts of ``Seattle,WA``, or of ``["Washington, D.C.","DC"]`` for texts with commas."""
    parts = json_or_text("--baseline", value) if value.lstrip().startswith("[") else value.split(",")
    if len(parts) != len(slots) or not all(isinstance(part, str) for part in parts):
        usage_error(
            "--baseline",
            f"{value!r} is not {len(slots)} texts, one for each of {', '.join(slots)}. Separate them with commas; "
            'if a text has commas, write a JSON list: \'city,state=["Washington, D.C.", "DC"]\'.',
        )
    return tuple(parts)
