"""Equality of JSON in texts, such as tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apportion.errors import InputError, shown
from apportion.options import true_or_false
from apportion.protocols.targets import Target
from apportion_plugins.targets.texts import TextTarget

__all__ = ["JSONMatch"]

Path = tuple[object, ...]
OPENING = re.compile(r"[{\[]")
CALL = re.compile(r"""\{\s*["']|\[\s*[\[{"]""")
"""Beginnings of what is meant as an object, or a list of objects, lists or strings; other brackets may be prose."""


class JSONMatch(TextTarget):
    """1 if the first JSON object in the text equals the one in the target, else 0; for tool calls. The same for lists.

    Order of keys, white space and what surrounds the JSON do not count, nor does whether 1 is written as 1.0. Strings
    that are JSON objects themselves, as the arguments of OpenAI's tool calls are, count as these objects. A text
    without JSON has the value 0.

    Args:
        partial: the share of the leaves of both that are equal (their Jaccard index), instead of 1 or 0: 0.5 for a call
            with the right name and one wrong argument of one.
        only: keys that count, such as ``["name"]``, at any depth; ``None`` for all.

    Raises:
        InputError: ``only`` is not a list of keys.
    """

    unit = "match"
    label = "equality of JSON with the target"

    def __init__(self, *, partial: bool = False, only: Sequence[str] | None = None) -> None:
        self._partial = true_or_false("partial", partial)
        listed = isinstance(only, Sequence) and not isinstance(only, str)
        if only is not None and not (listed and only and all(isinstance(key, str) for key in only)):
            raise InputError(f"only={shown(only)} must be a list of keys, such as ['name'].")
        self._only = None if only is None else frozenset(only)

    def check(self, target: Target) -> None:
        """Refuse a target without JSON, with broken JSON, or without any key that counts.

        Raises:
            InputError: it is one.
        """
        wanted = _first(target.text)
        if wanted is None:
            raise InputError(f"The target contains no JSON object or list to compare with: {shown(target.text)}.")
        if self._only is not None and not any(True for _ in self._leaves(wanted, ())):
            raise InputError(f"The target has none of the keys only={sorted(self._only)}: {shown(target.text)}.")

    def value(self, text: str, wanted: str) -> float:
        """1, 0 or a share."""
        target = _first(wanted)
        found = next((value for value in _values(text) if isinstance(value, type(target))), None)
        if found is None:
            return 0.0
        ours, theirs = (frozenset(self._leaves(value, ())) for value in (found, target))
        return len(ours & theirs) / len(ours | theirs) if self._partial else float(ours == theirs)

    def _leaves(self, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
        """The leaves of a value, each with the keys that lead to it; those that count."""
        value = _unpacked(value)
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from self._leaves(inner, (*path, key))
        elif isinstance(value, list) and value:
            for place, inner in enumerate(value):
                yield from self._leaves(inner, (*path, place))
        elif self._only is None or self._only & set(path):
            yield path, _canonical(value)


def _first(text: str) -> Any:
    """The first JSON object or list in a text; ``None`` if there is none."""
    return next((value for value in _values(text) if value is not None), None)


def _values(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, in order; ``None`` for what begins like one and is broken.

    Nothing inside a broken one counts: an inner object of a call that was cut off is not the call.
    """
    decoder, place = json.JSONDecoder(), 0
    while found := OPENING.search(text, place):
        try:
            value, place = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            start = found.start()
            value, place = None, _end_of_broken(text, start) if CALL.match(text, start) else start + 1
        yield value


def _end_of_broken(text: str, start: int) -> int:
    """The place after the bracket that closes the one at ``start``; the end of the text if none does."""
    depth, place, quoted = 0, start, False
    while place < len(text):
        character = text[place]
        if quoted and character == "\\":
            place += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted and character in "{[":
            depth += 1
        elif not quoted and character in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return len(text)


def _unpacked(value: Any) -> Any:
    """The object that a string holds, if it holds one."""
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _canonical(value: Any) -> str:
    """A leaf as a text: equal numbers are equal, and the number 1 is neither true nor the string "1"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)
