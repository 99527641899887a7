"""Parameters that several kinds of prompts share: how they are split, and which parts are always present."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from apportion.errors import InputError, listing, shown, unknown_name

__all__ = [
    "CHATML",
    "PIECES",
    "TEXT_FEATURES",
    "Keep",
    "Splitter",
    "check_baseline",
    "check_by",
    "check_keep",
    "repeated",
]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The ChatML format of many models, with the same framing for every turn."""

PIECES = ("words", "sentences", "lines", "paragraphs")
"""Ways to split any text."""
TEXT_FEATURES = ("words", "tokens", "sentences", "lines", "paragraphs")
"""Ways to split a text that is the whole prompt."""

Splitter = Callable[[str], Sequence[str]]
Keep = Sequence[str | int] | Callable[[str], bool]


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time; ``None`` if all are distinct."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_by(by: object, names: Sequence[str]) -> None:
    """Reject an invalid ``by``, which may also have been given as ``features`` of ``attribute``.

    Raises:
        InputError: ``by`` is neither one of ``names`` nor a function.
    """
    if isinstance(by, str):
        if by not in names:
            raise unknown_name(
                "kind of feature", by, names, "In Python, a function from a text to its pieces works, too."
            )
    elif not callable(by):
        raise InputError(f"{shown(by)} is neither a kind of feature ({listing(names)}) nor a function.")


def check_keep(keep: object) -> None:
    """Reject an invalid ``keep``.

    Raises:
        InputError: ``keep`` is neither a list nor a function.
    """
    if isinstance(keep, str | int):
        raise InputError(f"keep={shown(keep)} is one feature; write keep=[{shown(keep)}].")
    if not callable(keep) and not isinstance(keep, Iterable):
        raise InputError(f"keep={shown(keep)} is neither a list of texts and indices nor a function.")


def check_baseline(baseline: object) -> None:
    """Reject an invalid ``baseline``.

    Raises:
        InputError: ``baseline`` is neither a string nor ``None``.
    """
    if not isinstance(baseline, str | None):
        raise InputError(f"baseline={baseline!r} must be a string, or None to remove absent features.")
