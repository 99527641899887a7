"""Conversations, whose features are turns, roles or pieces of messages, and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError, listing
from apportion.prompts.chat import Chat, tool_name
from apportion.protocols.features import Segment
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext
from apportion.rendering.picture_writer import special_tokens_in_chat
from apportion_plugins.inputs.chat_template import ChatWriter
from apportion_plugins.inputs.control_tokens import check_control_tokens
from apportion_plugins.inputs.levels import nested
from apportion_plugins.inputs.marks import Span, json_spans, segments, unmarked
from apportion_plugins.inputs.naming import kept_indices, short
from apportion_plugins.inputs.turns import turns_of
from apportion_plugins.inputs.units import Units

__all__ = ["ChatAdapter"]

FEWEST_REHEARSED = 16
"""Number of turns and tools that are left out on trial, however long the conversation is."""
UNITS_REHEARSED = 250_000
"""Number of units (turns, tools, pieces) to render on trial in total, which takes a second or two."""


class ChatAdapter:
    """Renders each coalition as a conversation, with the chat template."""

    def __init__(self, prompt: Chat, context: AdaptContext) -> None:
        if prompt.image_parts and context.processor is None:
            raise InputError("A chat with parts of the type 'image' needs a model that reads pictures.")
        if prompt.image_parts and context.writer is None:
            raise InputError(
                "The chat has parts of the type 'image', but no pictures: pass ap.ImageText(pictures, chat)."
            )
        self._context = context
        self._prompt = prompt
        self._turns = turns_of(prompt)
        self._tools = [_schema(tool) for tool in prompt.tools]
        names = [tool_name(tool) for tool in prompt.tools]
        controls = self._check_control_tokens()
        self._writer = ChatWriter(
            context.tokenizer,
            chat_template=_template(prompt, context),
            options=prompt.template_options,
            tools=bool(self._tools),
            add_generation_prompt=prompt.add_generation_prompt,
            continues=self._continues,
        )
        everything = [True] * (len(self._turns.texts) + len(names))
        full = self._full(everything)
        spans = self._spans(full)
        # A tool is shown as the template formats it, or by name if that cannot be found in the prompt.
        shown = {unit: full[start:end] for start, end, unit in spans}
        tools = [shown.get(len(self._turns.texts) + i, name) for i, name in enumerate(names)]
        self._units = Units(
            [*self._turns.texts, *tools],
            self._kept(names),
            all_kept=context.writer is not None,
            baseline=prompt.baseline or "",
            labels=[*self._turns.labels, *names],
            groups=None if self._turns.groups is None else [*self._turns.groups, *(f"tool {name}" for name in names)],
        )
        self.features = self._units.features
        self.segments: tuple[Segment, ...] = segments(full, spans, self._units.feature_of)
        self.levels = nested(self._turns.groupings(self._units.firsts, names), len(self.features))
        self.notes = (*controls, *self._rehearsed(full))

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Render the conversation of each coalition with the chat template."""
        texts = [self._text(row, mask_row) for row, mask_row in zip(*self._rows(mask), strict=True)]
        return [
            one
            for special, some in groupby(texts, self._adds_special_tokens)
            for one in self._context.prompts(list(some), special_tokens=special)
        ]

    def _adds_special_tokens(self, text: str) -> bool:
        """Models that read pictures get a chat as their processor writes it, and others as their tokenizer does."""
        return self._context.processor is not None and special_tokens_in_chat(self._context.tokenizer, text)

    def _rows(self, mask: Bool[Tensor, "S F"]) -> tuple[list[list[bool]], list[list[bool]]]:
        return self._units.present(mask).tolist(), mask.tolist()

    @property
    def _whole_turns(self) -> bool:
        return self._prompt.by in ("turns", "roles")

    @property
    def _continues(self) -> bool:
        return self._prompt.add_generation_prompt and self._prompt.messages[-1]["role"] == "assistant"

    def _check_control_tokens(self) -> tuple[str, ...]:
        given = (list(self._prompt.messages), self._tools, self._prompt.baseline)
        return check_control_tokens(self._context.tokenizer, given, allowed=self._prompt.allow_control_tokens)

    def _kept(self, tools: Sequence[str]) -> frozenset[int]:
        count = len(self._turns.texts)
        wider = {name: [count + i] for i, name in enumerate(tools)} | dict(self._turns.wider)
        keep = self._prompt.keep
        roles = [str(message["role"]) for message in self._prompt.messages]
        if keep is None:
            asked = [i for i, role in enumerate(roles) if role == "user"][-1:]
            keep = asked if self._whole_turns else []
        kept = kept_indices(keep, [*self._turns.texts, *tools], wider)
        # The target continues an answer that has begun, so the turn with that answer must stay.
        begun = {count - 1} if self._whole_turns and self._continues else set()
        total = count + len(tools)
        # Beside pictures, the regions are features.
        if len(kept | begun) == total and self._context.writer is None:
            why = "" if self._prompt.keep is not None else " (the user's last turn is kept unless keep= is given)"
            raise InputError(
                f"Every feature is kept{why}; leave at least one to attribute to. by='sentences' or by='words' "
                "splits the contents of turns."
            )
        return kept | begun

    def _write(self, present: Sequence[bool], *, marks: bool = False) -> str:
        count = len(self._turns.texts)
        messages = self._turns.messages(present[:count], marks=marks)
        if not messages:
            raise InputError("no turn is left")
        tools = [tool for tool, here in zip(self._tools, present[count:], strict=True) if here]
        return self._writer.write(messages, tools)

    def _full(self, everything: Sequence[bool]) -> str:
        try:
            return self._write(everything)
        except InputError as error:
            parts = any(not isinstance(message.get("content"), str | None) for message in self._prompt.messages)
            hint = " Some contents are lists of parts; this template may need plain text." if parts else ""
            raise InputError(f"The chat template cannot write these messages: {error}.{hint}") from error

    def _text(self, present: Sequence[bool], row: Sequence[bool]) -> str:
        try:
            return self._write(present)
        except InputError as error:
            absent = listing((repr(f.name) for f, here in zip(self.features, row, strict=True) if not here), 6)
            removed = self._whole_turns and self._prompt.baseline is None
            hint = (
                'With baseline="" the turns stay and only their contents are removed; or keep= what the template needs.'
                if removed
                else "Keep what the template needs with keep=, or give a baseline that it accepts."
            )
            raise InputError(
                f"The chat template cannot write the conversation without {absent}: {str(error).rstrip('.')}. {hint}"
            ) from error

    def _spans(self, full: str) -> list[Span]:
        count = len(self._turns.texts)
        everything = [True] * (count + len(self._tools))
        try:
            with_marks = self._write(everything, marks=True)
        except InputError:  # a template that validates contents
            with_marks = ""
        spans = unmarked(with_marks, full, self._turns.texts)
        wanted = {count + i: _forms(tool) for i, tool in enumerate(self._tools)}
        for turn, message in enumerate(self._prompt.messages if self._whole_turns else ()):
            calls: Any = message.get("tool_calls") or ()
            wanted[turn] = [form for call in calls for form in _forms(call)]
        return spans + json_spans(full, wanted)

    def _rehearsed(self, full: str) -> list[str]:
        """Render the empty coalition, and others without one turn or tool, so that templates fail early.

        Each turn and tool is left out once, unless there are so many that the work would grow with their square.
        """
        notes: list[str] = []
        count = len(self.features)
        alone = self._to_leave_out()
        mask = torch.ones(len(alone) + 1, count, dtype=torch.bool)
        mask[range(len(alone)), alone] = False
        mask[-1] = False
        *rows, nothing = zip(*self._rows(mask), strict=True)
        for i, present in zip(alone, rows, strict=True):
            text = self._text(*present)
            name = self.features[i].name
            own = _inserted(full, text, self._prompt.baseline)
            if text == full and self.features[i].text != self.features[i].baseline:
                notes.append(f"the chat template does not show {name!r}, so it has no effect")
            elif own:
                notes.append(f"without {name!r} the chat template adds text of its own: {short(own)!r}")
        self._text(*nothing)
        return notes

    def _to_leave_out(self) -> list[int]:
        """Features to leave out one at a time: whole turns and tools, or an evenly spaced choice of very many."""
        first = 0 if self._whole_turns else len(self._turns.texts)
        features = list(dict.fromkeys(i for i in self._units.feature_of[first:] if i is not None))
        most = max(FEWEST_REHEARSED, UNITS_REHEARSED // len(self._units.feature_of))
        if len(features) <= most:
            return features
        return [features[i * (len(features) - 1) // (most - 1)] for i in range(most)]


def _template(prompt: Chat, context: AdaptContext) -> str | None:
    """The chat template of the processor, where it has the one that the prompt wants; else that of the prompt."""
    own = getattr(context.processor, "chat_template", None)
    named = own if isinstance(own, Mapping) else {"default": own}
    found = named.get(prompt.chat_template or "default")
    # Beside pictures, the processor knows where they stand.
    wanted = context.writer is not None or not context.tokenizer.chat_template
    return found if wanted and isinstance(found, str) else prompt.chat_template


def _inserted(full: str, text: str, baseline: str | None) -> str:
    """The part of ``text`` that remains after the prefix and suffix that it shares with ``full``."""
    before = _alike(full, text)
    after = _alike(full[before:][::-1], text[before:][::-1])
    own = text[before : len(text) - after].strip()
    return "" if own == (baseline or "").strip() else own


def _alike(one: str, other: str) -> int:
    """Length of the longest common prefix of two texts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _forms(thing: Any) -> list[object]:
    """Forms in which templates show a tool or a call: the whole object, or its ``function``."""
    inner = thing.get("function") if isinstance(thing, Mapping) else None
    return [thing] if inner is None else [thing, inner]


def _schema(tool: object) -> object:
    if not callable(tool):
        return tool
    from transformers.utils.chat_template_utils import get_json_schema

    try:
        return get_json_schema(tool)
    except Exception as error:  # it parses the user's docstrings and type hints
        raise InputError(
            f"The function {tool_name(tool)!r} cannot be described as a tool: {error} Give its JSON schema instead."
        ) from error
