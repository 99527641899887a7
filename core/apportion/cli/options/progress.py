"""When progress is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from apportion.cli.options.command import NO_VALUE, in_panel
from apportion.cli.parse import usage_error
from apportion.protocols.progress import ALWAYS, AUTO, NEVER

__all__ = ["OUTPUT", "ProgressOptions"]

OUTPUT = "Output"
"""The panel."""

_option = in_panel(OUTPUT)


@dataclass(frozen=True, slots=True)
class ProgressOptions:
    """When progress is shown."""

    progress: Annotated[
        str,
        _option(
            metavar="WHEN",
            help="When to show progress, on stderr: auto, always or never. In a terminal it is a bar, and elsewhere a "
            "line every few seconds, once it takes that long; always adds a first and a last line there.",
        ),
    ] = AUTO
    no_progress: Annotated[bool, _option("--no-progress", metavar=NO_VALUE, hidden=True)] = False

    @property
    def shown(self) -> str:
        """``"auto"``, ``"always"`` or ``"never"``.

        Raises:
            typer.BadParameter: it is something else, or both flags are given.
        """
        if self.progress not in (AUTO, ALWAYS, NEVER):
            usage_error("--progress", f"{self.progress!r} is not one of {AUTO}, {ALWAYS}, {NEVER}.")
        if self.no_progress and self.progress == ALWAYS:
            usage_error("--no-progress", "--progress always is given too; leave one of them out.")
        return NEVER if self.no_progress else self.progress
