"""The flags of ``apportion run`` that are not those of ``apportion attribute``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.flags import NO_VALUE, OUTPUT

DATASET = "Dataset"

Dataset = Annotated[
    Path,
    typer.Argument(metavar="DATASET", help="A .jsonl, .csv or .parquet file with a prompt in each row."),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Where results go, a line for each row as it ends. The same command goes on where an earlier one stopped.",
    ),
]
PromptColumn = Annotated[
    str, typer.Option(metavar="NAME", rich_help_panel=DATASET, help="Holds the prompts; not needed with --template.")
]
TargetColumn = Annotated[
    str,
    typer.Option(metavar="NAME", rich_help_panel=DATASET, help="Holds targets; where it is empty, --target counts."),
]
IdColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=DATASET, help="Holds a name for each row; where it is empty, its number counts."
    ),
]
SkipErrors = Annotated[
    bool,
    typer.Option(
        "--skip-errors",
        metavar=NO_VALUE,
        rich_help_panel=DATASET,
        help="Write down rows that cannot be read as failed, instead of refusing the file.",
    ),
]
AtOnce = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, rich_help_panel=DATASET, help="Rows under way together; what they ask shares batches."
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", metavar=NO_VALUE, rich_help_panel=OUTPUT, help="Delete the results in the folder, and begin anew."
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", metavar=NO_VALUE, rich_help_panel=OUTPUT, help="Try rows again that failed before."),
]
RunCache = Annotated[
    bool,
    typer.Option(
        "--cache",
        metavar=NO_VALUE,
        rich_help_panel=OUTPUT,
        help="Remember scores in your cache folder instead of the output folder.",
    ),
]
