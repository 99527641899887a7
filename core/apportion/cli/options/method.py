"""The method, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from apportion.cli.options.command import in_panel
from apportion.cli.parse import json_pairs, usage_error

__all__ = ["METHOD", "MethodOptions"]

METHOD = "Method"
"""The panel."""

_option = in_panel(METHOD)


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The method, its options, its budget and its seed."""

    method: Annotated[
        str,
        _option(
            metavar="NAME",
            help="Method to use; see `apportion methods`. 'auto' takes exact Shapley values while the budget (1024 if "
            "none is given) allows, else sampled ones, else drills down into groups.",
        ),
    ] = "auto"
    option: Annotated[
        tuple[str, ...],
        _option(
            "--option",
            "-o",
            metavar="KEY=VALUE",
            help="Option of the method; see `apportion methods show NAME`. Values are read as JSON (10, true, [1, 2]) "
            "or else as text. Repeatable.",
        ),
    ] = ()
    budget: Annotated[
        int | None,
        _option(
            metavar="N", min=1, show_default="the method's choice", help="Maximum number of distinct model evaluations."
        ),
    ] = None
    until: Annotated[
        float | None,
        _option(
            metavar="X",
            help="Continue until every standard error is at most this (nats for log_prob), or the budget is spent.",
        ),
    ] = None
    seed: Annotated[int, _option(metavar="N", min=0, help="Seed of every random draw.")] = 0

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Explainer.attribute`` that every method takes.

        Raises:
            typer.BadParameter: ``until`` is not above 0.
        """
        if self.until is not None and not self.until > 0:
            usage_error("--until", f"{self.until:g} is not a standard error; write a number above 0, such as 0.05.")
        return {"method": self.method, "budget": self.budget, "until": self.until, "seed": self.seed}

    def method_options(self) -> dict[str, Any]:
        """Arguments that only this method takes.

        Raises:
            typer.BadParameter: an option that cannot be read.
        """
        return json_pairs("--option", self.option, "n_permutations=20")
