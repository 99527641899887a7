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

__all__ = ["check_contrast", "check_items", "check_tokens", "with_contrast_faults", "with_faults"]

SHOWN = 8
"""Rows whose faults a message states; it names the others."""

Check = Callable[[Mapping[str, Any]], None]


def check_contrast(call: Mapping[str, Any]) -> None:
    """Refuse a contrast that no target function takes, and a function that lacks one. Imports torch.

    Args:
        call: arguments of ``attribute``.

    Raises:
        InputError: one of these, or the contrast is the target.
    """
    name, contrast, target = call["target_fn"], call.get("contrast"), call.get("target")
    targets = installed_plugins()["targets"]
    names = (name, *(step for step, _ in call.get("step_scores") or ()))
    contrastive = [one for one in names if getattr(targets.get(one).load(), "contrastive", False)]
    if contrastive and contrast is None:
        raise InputError(f"The target function {contrastive[0]!r} compares with another target; give it as --contrast.")
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


def with_contrast_faults(items: Sequence[Item], shared: Mapping[str, Any]) -> list[Item]:
    """The rows, with faults in their contrasts. Imports torch.

    Raises:
        InputError: the flags are at fault: one of them is wrong, or missing in all rows.
    """
    if shared["contrast"] is not None or not any("contrast" in item.arguments for item in items):
        check_contrast(shared)
    return with_faults(items, shared, check_contrast)


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
    hint = "" if len(bad) == len(items) else " Fix the file, or add --skip-errors to record such rows as failed."
    if len(bad) == 1:
        raise InputError(f"{path}, {bad[0].record.place}, cannot be attributed: {_reason(bad[0])}.{hint}")
    reasons = [f"{item.record.place}: {_reason(item)}" for item in bad[:SHOWN]]
    more = [f"and {len(bad) - SHOWN:,} more: {listing(item.record.place for item in bad[SHOWN:])}"]
    told = "; ".join(reasons + (more if len(bad) > SHOWN else []))
    raise InputError(f"{len(bad):,} rows of {path} cannot be attributed: {told}.{hint}")


def _reason(item: Item) -> str:
    return (item.fault or "").rstrip(".")
