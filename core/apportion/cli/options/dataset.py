"""The dataset of ``apportion run``, and the folder that its results go into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.options.command import NO_VALUE, in_panel
from apportion.cli.options.output import OUTPUT

__all__ = ["DatasetOptions"]

_option = in_panel("Dataset")
_output = in_panel(OUTPUT)


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Which rows are attributed, and into which folder."""

    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="A .jsonl, .csv or .parquet file with a prompt in each row."),
    ]
    out: Annotated[
        Path,
        _output(
            metavar="FOLDER",
            help="Where results go, a line for each row as it ends. The same command goes on where an earlier one "
            "stopped.",
        ),
    ]
    prompt_column: Annotated[str, _option(metavar="NAME", help="Holds the prompts; not needed with --template.")] = (
        "prompt"
    )
    target_column: Annotated[
        str, _option(metavar="NAME", help="Holds targets; where it is empty, --target counts.")
    ] = "target"
    id_column: Annotated[
        str, _option(metavar="NAME", help="Holds a name for each row; where it is empty, its number counts.")
    ] = "id"
    skip_errors: Annotated[
        bool,
        _option(
            "--skip-errors",
            metavar=NO_VALUE,
            help="Write down rows that cannot be read as failed, instead of refusing the file.",
        ),
    ] = False
    at_once: Annotated[
        int, _option(metavar="N", min=1, help="Rows under way together; what they ask shares batches.")
    ] = 8
    restart: Annotated[
        bool, _output("--restart", metavar=NO_VALUE, help="Delete the results in the folder, and begin anew.")
    ] = False
    retry_failed: Annotated[
        bool, _output("--retry-failed", metavar=NO_VALUE, help="Try rows again that failed before.")
    ] = False
    cache: Annotated[
        bool,
        _output(
            "--cache",
            metavar=NO_VALUE,
            help="Remember scores in your cache folder instead of the output folder.",
        ),
    ] = False
