"""Saved results: files, and rows of the folders that ``apportion run`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli.parse import usage_error
from apportion.errors import InputError, ResultError, listing, suggestion

if TYPE_CHECKING:
    from apportion.results.attribution import Attribution
    from apportion.results.run_folder import ResultsFolder

__all__ = ["SAVED", "RowOptions", "folder_of", "saved_result"]


SAVED = "Saved result"
"""The panel."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """The row of a folder."""

    row: Annotated[
        str | None,
        typer.Option(
            "--row",
            "--item",
            metavar="ID",
            show_default=False,
            rich_help_panel=SAVED,
            help="One row of the folder, by its id, or else by its number from 1.",
        ),
    ] = None


def folder_of(path: Path) -> ResultsFolder | None:
    """The folder that ``apportion run`` wrote, given itself or its results.jsonl; ``None`` for any other path.

    Raises:
        ResultError: it is a folder of something else.
    """
    # Imported here: numpy is not needed to refuse a command line.
    from apportion.results.run_folder import ResultsFolder

    folder = ResultsFolder(path if path.is_dir() else path.parent)
    if not path.exists():
        return None
    if not path.is_dir():
        return folder if path.name == folder.lines.name else None
    if not folder.lines.exists() and folder.manifest() is None:
        raise ResultError(
            f"The folder {path} has no results of `apportion run`: there is no {folder.lines.name} in it."
        )
    return folder


def saved_result(path: Path, row: str | None) -> Attribution:
    """Load a result from a file, or from a row of a folder.

    Raises:
        typer.BadParameter: a folder needs a row, or a file has none.
        InputError: there is no such row, or it failed.
        ResultError: the file or folder cannot be read.
    """
    from apportion.results.attribution import Attribution
    from apportion.results.result_json import fields_of

    folder = folder_of(path)
    if folder is None:
        if row is not None and path.exists():
            usage_error("--row", f"{path} is one result; --row is for folders that `apportion run` wrote.")
        return Attribution.load(path)
    if row is None:
        usage_error("--row", f"{path} holds a result for each row; name one, such as --row 1.")
    line = _line(folder, row)
    if "error" in line:
        raise InputError(f"Row {line['id']} of {path} failed: {line['error'].get('message', '')}")
    return Attribution(**fields_of(line["result"], f"row {line['id']} of {folder.lines}"))


def _line(folder: ResultsFolder, row: str) -> Mapping[str, Any]:
    """The last line of a row: an id takes precedence over a number."""
    by_id: Mapping[str, Any] | None = None
    by_number: Mapping[str, Any] | None = None
    known: dict[str, None] = {}
    for line in folder.whole_lines():
        known[str(line["id"])] = None
        if str(line["id"]) == row:
            by_id = line
        if str(line.get("row")) == row:
            by_number = line
    found = by_id or by_number
    if found is None:
        raise InputError(
            f"{folder.path} has no row {row!r} that has ended. {suggestion(row, known)}Its rows: {listing(known)}."
        )
    return found
