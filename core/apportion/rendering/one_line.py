"""Prompts in which each answer takes one line, such as few-shot examples that were pasted with their labels."""

from __future__ import annotations

import re

__all__ = ["answers_take_a_line"]

SEPARATORS = (":", "=>", "->", "→", "=", "|")
"""What stands between a question and its answer on the same line."""
LABEL = re.compile(r"\s*(\S[^:\n]{0,39}?)\s*:(.*)")


def answers_take_a_line(text: str) -> bool:
    """True if a prompt ends where an answer begins, and earlier answers of the same kind each take one line.

    That is the case if an earlier line has the same label and a value (``Label: positive``, then ``Label:``), or if
    most lines are pairs with the separator with which the prompt ends (``cheese => fromage``, then ``bread =>``).

    Args:
        text: the prompt.
    """
    *earlier, last = text.split("\n")
    filled = [line for line in earlier if line.strip()]
    return _label_again(filled, last) or _pairs(filled, last)


def _label_again(earlier: list[str], last: str) -> bool:
    label, _ = _labelled(last)
    return bool(label) and any(before == label and value for before, value in map(_labelled, earlier))


def _labelled(line: str) -> tuple[str, str]:
    """The label of a line and its value; numbers in labels do not matter."""
    match = LABEL.match(line)
    return (re.sub(r"\d+", "0", match[1]), match[2].strip()) if match else ("", "")


def _pairs(earlier: list[str], last: str) -> bool:
    separator = next((one for one in SEPARATORS if last.rstrip().endswith(one) and last.strip() != one), None)
    if separator is None:
        return False
    parted = [line.partition(separator) for line in earlier]
    pairs = sum(1 for left, _, right in parted if left.strip() and right.strip())
    return pairs >= 2 and 2 * pairs > len(earlier)
