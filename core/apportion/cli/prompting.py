"""From flags to a prompt: a ``Text``, a ``Template``, a ``Chat`` or ``Documents``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.cli.conversing import chat_prompt, documents_prompt
from apportion.cli.parse import json_or_text, pair, split_names, usage_error
from apportion.cli.plugin_input import plugin_prompt
from apportion.cli.reading import read_text, without_last_line_break
from apportion.prompts import Chat, Documents, Template, Text

__all__ = ["PromptFlags", "build_prompt"]


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """What was typed about the prompt; ``None`` and empty: not typed."""

    prompt: str | None
    prompt_file: Path | None
    by: str | None
    text_baseline: str | None
    baseline_id: int | None
    keep: Sequence[str]
    keep_index: Sequence[int]
    template: str | None
    values: Sequence[str]
    baselines: Sequence[str]
    groups: Sequence[str]
    draws: int | None
    input: str | None
    input_options: Sequence[str]
    chat: str | None
    documents: Sequence[Path]
    layout: str | None
    as_chat: bool
    stdin: bool = True
    """A prompt of ``-`` stands for stdin, which it does where it was typed."""

    @property
    def kept(self) -> list[str | int]:
        """What is always present."""
        return [*self.keep, *self.keep_index]

    @property
    def files(self) -> list[Path]:
        """What is read."""
        chat = [] if self.chat in (None, "-") else [Path(str(self.chat))]
        return [*([] if self.prompt_file is None else [self.prompt_file]), *chat, *self.documents]


def build_prompt(flags: PromptFlags) -> object:
    """The prompt that the flags describe, or what a plugin's input makes of a text.

    Raises:
        typer.BadParameter: flags that do not go together.
        InputError: a prompt that cannot be attributed, or a file that cannot be read.
    """
    given = {
        "PROMPT": flags.prompt is not None,
        "--prompt-file": flags.prompt_file is not None,
        "--template": flags.template is not None,
        "--chat": flags.chat is not None,
    }
    named = [name for name, present in given.items() if present]
    if not named:
        usage_error("PROMPT", "there is no prompt; give a PROMPT ('-' for stdin), --prompt-file, --template or --chat.")
    if len(named) > 1:
        usage_error(named[-1], f"{' and '.join(named)} are given; a run has one prompt.")
    if flags.input_options and flags.input is None:
        usage_error(
            "--input-option", f"{flags.input_options[0]!r} is for a prompt of another type, and there is no --input."
        )
    _check_documents(flags, named[0])
    if flags.input is not None:
        return _of_plugin(flags, flags.input)
    if flags.chat is not None or flags.documents:
        return _of_parts(flags)
    return _text(flags) if flags.template is None else _template(flags, flags.template)


def _of_plugin(flags: PromptFlags, name: str) -> object:
    for flag, own, what in (
        ("--template", flags.template, "a template is an input of its own"),
        ("--chat", flags.chat, "a chat is an input of its own"),
        ("--document", flags.documents or None, "documents are an input of their own"),
    ):
        if own is not None:
            usage_error("--input", f"{flag} is given too; {what}.")
    for flag, given in (_for_texts(flags) | _for_templates(flags)).items():
        if given:
            usage_error(
                flag, f"this is for plain prompts and templates; options of {name!r} are --input-option NAME=VALUE."
            )
    return plugin_prompt(name, _prompt_text(flags), flags.input_options)


def _check_documents(flags: PromptFlags, source: str) -> None:
    if not flags.documents:
        for flag, given in (("--layout", flags.layout), ("--as-chat", flags.as_chat or None)):
            if given is not None:
                usage_error(flag, "this is for documents, and there is no --document.")
    elif source not in ("PROMPT", "--prompt-file"):
        usage_error("--document", f"{source} is given too; the question about documents is PROMPT or --prompt-file.")


def _of_parts(flags: PromptFlags) -> Chat | Documents:
    """A conversation, or a question about documents: what they have in common."""
    what = "--document" if flags.documents else "--chat"
    for name, given in _for_templates(flags).items():
        if given:
            hint = " What replaces absent features is --text-baseline." if name == "--baseline" else ""
            usage_error(name, f"{given[0]!r} is for slots, and the features are those of {what}.{hint}")
    if flags.baseline_id is not None:
        usage_error("--baseline-id", f"a token id can replace tokens only; with {what} give --text-baseline.")
    if flags.chat is not None:
        return chat_prompt(flags.chat, by=flags.by, baseline=flags.text_baseline, keep=flags.kept)
    return documents_prompt(
        _prompt_text(flags),
        flags.documents,
        by=flags.by,
        baseline=flags.text_baseline,
        keep=flags.kept,
        layout=flags.layout,
        chat=flags.as_chat,
    )


def _for_texts(flags: PromptFlags) -> dict[str, object]:
    return {
        "--by": flags.by,
        "--text-baseline": flags.text_baseline,
        "--baseline-id": flags.baseline_id,
        "--keep": flags.keep or None,
        "--keep-index": flags.keep_index or None,
    }


def _for_templates(flags: PromptFlags) -> dict[str, Sequence[str]]:
    draws = () if flags.draws is None else (str(flags.draws),)
    return {"--value": flags.values, "--baseline": flags.baselines, "--group": flags.groups, "--draws": draws}


def _text(flags: PromptFlags) -> Text:
    for name, given in _for_templates(flags).items():
        if given:
            hint = " What replaces absent pieces of a plain prompt is --text-baseline." if name == "--baseline" else ""
            usage_error(name, f"{given[0]!r} is for slots, and there is no --template.{hint}")
    if flags.text_baseline is not None and flags.baseline_id is not None:
        usage_error("--baseline-id", "--text-baseline is given too; one thing can replace an absent piece.")
    by = flags.by or "words"
    if flags.baseline_id is not None and by != "tokens":
        usage_error(
            "--baseline-id", f"a token id can replace tokens only, and the prompt is cut by {by}; add --by tokens."
        )
    baseline = flags.text_baseline if flags.baseline_id is None else flags.baseline_id
    return Text(_prompt_text(flags), by=by, baseline=baseline, keep=(*flags.keep, *flags.keep_index))


def _prompt_text(flags: PromptFlags) -> str:
    if flags.prompt_file is not None or (flags.stdin and flags.prompt == "-"):
        return without_last_line_break(read_text("prompt", flags.prompt_file))
    return flags.prompt or ""


def _template(flags: PromptFlags, template: str) -> Template:
    for name, given in _for_texts(flags).items():
        if given is not None:
            usage_error(name, f"{given!r} is for plain prompts; the features of a --template are its slots.")
    values: dict[str, str] = {}
    for text in flags.values:
        slot, value = pair("--value", text, "name=Dave")
        if slot in values:
            usage_error("--value", f"the slot {slot!r} is given twice: {values[slot]!r} and {value!r}.")
        values[slot] = value
    if not values:
        usage_error("--value", "a --template needs the values of its slots; write --value name=Dave.")
    return Template(
        template,
        values=_positional(values),
        baselines=_baselines(flags.baselines) or None,
        groups=[split_names("--group", text, "name,pronoun") for text in flags.groups],
        **({} if flags.draws is None else {"draws": flags.draws}),
    )


def _positional(values: Mapping[str, str]) -> Mapping[str, str] | list[str]:
    """A list for ``--value 0=… --value 1=…``, which fill ``{}`` or ``{0}``."""
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
    """``Seattle,WA``, or ``["Washington, D.C.","DC"]`` for values with commas."""
    parts = json_or_text("--baseline", value) if value.lstrip().startswith("[") else value.split(",")
    if len(parts) != len(slots) or not all(isinstance(part, str) for part in parts):
        usage_error(
            "--baseline",
            f"{value!r} is not {len(slots)} texts, one for each of {', '.join(slots)}. Separate them with commas, or "
            'write a JSON list where they hold commas: \'city,state=["Washington, D.C.", "DC"]\'.',
        )
    return tuple(parts)
