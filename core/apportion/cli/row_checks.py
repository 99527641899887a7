"""Checks of targets and contrasts, before any row is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.items import Item
from apportion.errors import ApportionError, InputError, listing
from apportion.hooks.manager import installed_plugins

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = ["check_contrast", "check_items", "check_tokens", "with_faults"]

Check = Callable[[Mapping[str, Any]], None]


def check_contrast(call: Mapping[str, Any]) -> None:
    """Refuse a contrast that the target function does not take, and a function that lacks one. Imports torch.

    Args:
        call: arguments of ``attribute``.

    Raises:
        InputError: one of these, or the contrast is the target.
    """
    name, contrast, target = call["target_fn"], call.get("contrast"), call.get("target")
    targets = installed_plugins()["targets"]
    contrastive = bool(getattr(targets.get(name).load(), "contrastive", False))
    if contrastive and contrast is None:
        raise InputError(f"The target function {name!r} compares with another target; give it as --contrast.")
    if contrast is None:
        return
    if not contrastive:
        others = [entry.name for entry in targets if getattr(entry.load(), "contrastive", False)]
        raise InputError(
            f"The contrast {contrast!r:.60} has no effect: the target function {name!r} compares with nothing. Choose "
            f"another --target-fn: {listing(others)}."
        )
    if contrast == target:
        raise InputError(f"The contrast {contrast!r:.60} is equal to the target; give another one.")


def check_tokens(explainer: Explainer, call: Mapping[str, Any]) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        InputError: the target or contrast has one.
    """
    from apportion.runs.target_text import Targets

    for name in ("target", "contrast"):
        if call.get(name) is not None:
            Targets(explainer.session).checked(name, call[name])


def with_faults(items: Sequence[Item], shared: Mapping[str, Any], check: Check) -> list[Item]:
    """The rows, each with the fault that a check finds in its arguments, if it had none."""
    found: list[Item] = []
    for item in items:
        if item.fault is None:
            try:
                check({**shared, **item.arguments})
            except ApportionError as error:
                item = replace(item, fault=str(error))
        found.append(item)
    return found


def check_items(path: Path, items: Sequence[Item], *, skip_errors: bool) -> None:
    """Refuse rows that cannot be attributed.

    Args:
        path: the file of the rows, for the message.
        items: the rows.
        skip_errors: accept them, if there are others.

    Raises:
        InputError: there is such a row; the message names it.
    """
    bad = [item for item in items if item.fault is not None]
    if not bad or (skip_errors and len(bad) < len(items)):
        return
    first, rest = bad[0], len(bad) - 1
    more = f" Nor can {rest} more: {listing(item.record.place for item in bad[1:])}." if rest else ""
    hint = "" if len(bad) == len(items) else " Fix the file, or add --skip-errors to record such rows as failed."
    raise InputError(
        f"{path}, {first.record.place}, cannot be attributed: {(first.fault or '').rstrip('.')}.{more}{hint}"
    )
