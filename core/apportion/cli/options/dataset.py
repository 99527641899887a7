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
    """The dataset, its columns, and the folder of the results."""

    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="A .jsonl, .csv or .parquet file with one prompt per row."),
    ]
    out: Annotated[
        Path,
        _output(
            metavar="FOLDER",
            help="Folder for the results, with a line for each row that has ended. Repeat the command to resume it.",
        ),
    ]
    prompt_column: Annotated[
        str, _option(metavar="NAME", help="Column of the prompts; not needed with --template.")
    ] = "prompt"
    target_column: Annotated[
        str, _option(metavar="NAME", help="Column of the targets; --target is used where it is empty.")
    ] = "target"
    id_column: Annotated[
        str, _option(metavar="NAME", help="Column of the row ids; the row number is used where it is empty.")
    ] = "id"
    image_column: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="no pictures",
            help="Column of pictures that the model reads with the prompt: a path, or in .jsonl a list of them, "
            "relative to the folder of DATASET.",
        ),
    ] = None
    skip_errors: Annotated[
        bool,
        _option(
            "--skip-errors",
            metavar=NO_VALUE,
            help="Record rows that cannot be attributed as failed, instead of refusing the file.",
        ),
    ] = False
    at_once: Annotated[
        int, _option(metavar="N", min=1, help="Maximum number of rows in progress at once; they share batches.")
    ] = 8
    engine: Annotated[
        str,
        _option(
            metavar="NAME",
            help="'local' for this process; 'ray' for --workers processes on this machine, or ray://HOST:PORT for a "
            "cluster that reaches FOLDER.",
        ),
    ] = "local"
    workers: Annotated[
        int, _option(metavar="N", min=1, help="Number of workers of the engine; each opens the model.")
    ] = 2
    shard: Annotated[
        str | None,
        _option(
            metavar="I/N",
            show_default="all rows",
            help="Attribute only part I of N parts of the rows, into a folder in FOLDER. Once all have ended, the same "
            "command without --shard collects them.",
        ),
    ] = None
    restart: Annotated[
        bool, _output("--restart", metavar=NO_VALUE, help="Delete the results in the folder and start again.")
    ] = False
    retry_failed: Annotated[
        bool, _output("--retry-failed", metavar=NO_VALUE, help="Retry rows that failed before.")
    ] = False
    cache: Annotated[
        bool,
        _output(
            "--cache",
            metavar=NO_VALUE,
            help="Remember scores in your cache folder instead of the output folder.",
        ),
    ] = False
