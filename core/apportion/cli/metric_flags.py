"""The flags of ``apportion evaluate`` that are not those of ``apportion attribute``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.flags import OUTPUT

METRICS = "Metrics"

Metric = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=METRICS,
        show_default="all of them",
        help="A metric; see `apportion metrics`. Repeatable.",
    ),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC.NAME=VALUE",
        rich_help_panel=METRICS,
        show_default=False,
        help="An option of a metric: lds.masks=128. Repeatable; see `apportion metrics show NAME`.",
    ),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METHOD",
        rich_help_panel=METRICS,
        show_default=False,
        help="Another method, with its defaults, to judge beside the first. Repeatable.",
    ),
]
Curves = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Draw the deletion and insertion curves: .png, .svg or .pdf.",
    ),
]
