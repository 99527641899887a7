"""Units of a conversation that can be absent: whole turns, or pieces of their contents.

Both kinds have ``texts``; ``labels``, their names; ``groups``, the group of each unit if several units form one
feature; and ``wider``, the names of larger units that can be kept, with the units of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.prompts.chat import Chat
from apportion_plugins.inputs.levels import Grouping
from apportion_plugins.inputs.marks import marked
from apportion_plugins.inputs.naming import positions, unique_names
from apportion_plugins.inputs.sections import Sections

__all__ = ["CutTurns", "WholeTurns", "turns_of"]

Message = dict[str, Any]
FRAME = ("role", "name", "tool_call_id")
"""Fields that remain in a turn whose content is replaced."""


class WholeTurns:
    """Whole turns, which are removed with their markup, or whose content is replaced."""

    def __init__(self, prompt: Chat) -> None:
        self._messages = [dict(message) for message in prompt.messages]
        self._baseline = prompt.baseline
        self.texts = [_shown(message) for message in self._messages]
        self.labels = _roles(prompt)
        self.groups = self.labels if prompt.by == "roles" else None
        self.wider = positions(self.labels)

    def messages(self, present: Sequence[bool], *, marks: bool = False) -> list[Message]:
        """The conversation with some turns absent. ``marks`` wraps contents, all of which must be present."""
        found: list[Message] = []
        for turn, (message, here) in enumerate(zip(self._messages, present, strict=True)):
            if here:
                found.append(_marked(message, turn) if marks else message)
            elif self._baseline is not None or _pictures(message):
                frame = {key: message[key] for key in FRAME if key in message}
                found.append(frame | {"content": _as_content(self._baseline, message)})
        return found

    def groupings(self, units: Sequence[int], others: Sequence[str]) -> list[Grouping]:
        """No levels: only roles are coarser than turns, and the turns of a role are not adjacent."""
        return []


class CutTurns:
    """Pieces of the contents; every turn keeps its markup."""

    def __init__(self, prompt: Chat) -> None:
        self._messages = [dict(message) for message in prompt.messages]
        self._baseline = prompt.baseline
        contents = [_texts(message) for message in self._messages]
        self._counts = [len(texts) for texts in contents]
        self._turn_of_section = [turn for turn, count in enumerate(self._counts) for _ in range(count)]
        self._sections = Sections([text for texts in contents for text in texts], prompt.by)
        self._roles = _roles(prompt)
        self.texts = self.labels = self._sections.units
        self.groups: Sequence[str] | None = None
        turn_of = [self._turn_of_section[section] for section in self._sections.section_of]
        of_turn = positions(turn_of)
        self.wider: dict[str, list[int]] = {role: [] for role in self._roles}
        self.wider |= positions(self._roles[turn] for turn in turn_of)
        self.wider |= {_shown(self._messages[turn]).strip(): units for turn, units in of_turn.items()}

    def messages(self, present: Sequence[bool], *, marks: bool = False) -> list[Message]:
        """The conversation with some pieces absent. ``marks`` wraps pieces, all of which must be present."""
        texts = iter(self._sections.join(present, self._baseline, marks=marks))
        return [
            _with_texts(message, [next(texts) for _ in range(count)])
            for message, count in zip(self._messages, self._counts, strict=True)
        ]

    def groupings(self, units: Sequence[int], others: Sequence[str]) -> list[Grouping]:
        """Turns and coarser pieces of them, for features that start with these units, followed by ``others``."""
        turns = Grouping("turns", self._turn_of_section, unique_names(self._roles))
        return list(self._sections.groupings(turns, units, others))


def turns_of(prompt: Chat) -> WholeTurns | CutTurns:
    """The units of a ``Chat``."""
    return WholeTurns(prompt) if prompt.by in ("turns", "roles") else CutTurns(prompt)


def _roles(prompt: Chat) -> list[str]:
    return [str(message["role"]) for message in prompt.messages]


def _as_content(text: str | None, message: Message) -> object:
    """A text in the same form as the message's content, because templates may rely on it; with its pictures."""
    if not isinstance(message.get("content"), list | tuple):
        return text
    return [*_pictures(message), *([] if text is None else [{"type": "text", "text": text}])]


def _pictures(message: Message) -> list[Any]:
    """The parts of the content that stand for pictures."""
    content = message.get("content")
    return [part for part in content if part["type"] == "image"] if isinstance(content, list | tuple) else []


def _texts(message: Message) -> list[str]:
    """Texts of the content: one, one per part, or none."""
    content = message.get("content")
    if content is None:
        return []
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _with_texts(message: Message, texts: Sequence[str]) -> Message:
    content = message.get("content")
    if content is None:
        return message
    if isinstance(content, str):
        return message | {"content": texts[0]}
    given = iter(texts)
    return message | {"content": [part | {"text": next(given)} if "text" in part else part for part in content]}


def _shown(message: Message) -> str:
    """Text of a turn; for a turn without content, the tools that it calls."""
    texts = _texts(message)
    return "\n".join(texts) if texts else ", ".join(_called(call) for call in message.get("tool_calls") or ())


def _called(call: object) -> str:
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    return str(inner.get("name", "")) if isinstance(inner, Mapping) else ""


def _marked(message: Message, turn: int) -> Message:
    return _with_texts(message, [marked(text, turn) for text in _texts(message)])
