"""What several kinds of prompts say in the same way: how they are cut, and what is always present."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from apportion.errors import InputError, listing, unknown_name

__all__ = ["CHATML", "GRANULARITIES", "PIECES", "Keep", "Splitter", "check_baseline", "check_by", "check_keep"]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As many models have it: every turn the same."""

PIECES = ("words", "sentences", "paragraphs")
"""Cuts of any text."""
GRANULARITIES = ("words", "tokens", "sentences", "paragraphs")
"""Cuts of a text that is the whole prompt."""

Splitter = Callable[[str], Sequence[str]]
Keep = Sequence[str | int] | Callable[[str], bool]


def check_by(by: object, names: Sequence[str]) -> None:
    """Refuse what says of no text how to cut it.

    Raises:
        InputError: neither one of ``names`` nor a function.
    """
    if isinstance(by, str):
        if by not in names:
            raise unknown_name("granularity", by, names, "Or pass a function to `by`.")
    elif not callable(by):
        raise InputError(f"by={by!r} is neither a name ({listing(names)}) nor a function.")


def check_keep(keep: object) -> None:
    """Refuse what says of no feature that it is kept.

    Raises:
        InputError: neither a list nor a function.
    """
    if isinstance(keep, str | int):
        raise InputError(f"keep={keep!r} is one feature; write keep=[{keep!r}].")
    if not callable(keep) and not isinstance(keep, Iterable):
        raise InputError(f"keep={keep!r} is neither a list of texts and indices nor a function.")


def check_baseline(baseline: object) -> None:
    """Refuse what cannot stand in a text.

    Raises:
        InputError: neither a text nor ``None``.
    """
    if not isinstance(baseline, str | None):
        raise InputError(f"baseline={baseline!r} is neither a text nor None (absent features are removed).")
