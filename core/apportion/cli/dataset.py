"""Rows of a dataset: JSON Lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apportion.errors import ApportionError, InputError, counted, listing
from apportion.files import BOM, read_text
from apportion.prompts.common import repeated

__all__ = ["Record", "read_records"]


SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What some programs put between columns instead of commas."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a file.

    Attributes:
        number: number of the row, from 1.
        place: name of the row in messages, such as ``"line 7"``.
        values: values by column; ``None`` stands for a missing one.
        fault: reason why it cannot be read; ``None`` if it can.
    """

    number: int
    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None


def read_records(path: Path) -> list[Record]:
    """Read all rows of a file; those that cannot be read have a fault.

    Raises:
        InputError: the file is of another kind, cannot be read, is not UTF-8, or has no rows.
        ApportionError: the file is Parquet, and there is no pyarrow.
    """
    readers = {".jsonl": _of_json_lines, ".ndjson": _of_json_lines, ".csv": _of_csv, ".parquet": _of_parquet}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(f"The suffix of {path} is not one of {listing(readers)}.")
    try:
        found = list(read(path))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not found:
        raise InputError(f"{path} has no rows.")
    return found


def _of_json_lines(path: Path) -> Iterator[Record]:
    number = 0
    for line, text in enumerate(io.StringIO(read_text(path), newline="\n"), 1):
        plain = text.strip().removeprefix(BOM)  # in the middle where files were joined
        if not plain:
            continue
        number += 1
        place = f"line {line}"
        try:
            values = json.loads(plain)
        except json.JSONDecodeError as error:
            # Its own number of the line counts from this line.
            yield Record(
                number,
                place,
                fault=f"it is not JSON ({error.msg}, at character {text.index(plain[0]) + error.pos + 1})",
            )
            continue
        except RecursionError as error:
            yield Record(number, place, fault=f"it is not JSON ({error})")
            continue
        if isinstance(values, dict):
            yield Record(number, place, values)
        else:
            yield Record(number, place, fault="it is not a JSON object with the names of the columns as keys")


def _of_csv(path: Path) -> Iterator[Record]:
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    # A prompt may be longer than 128 KiB, which Python's parser allows a cell by default.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        header = next(rows, [])
        twice = repeated(header)
        if twice is not None:
            raise InputError(f"{path} has two columns called {twice!r}; rename one of them.")
        if len(header) == 1 and (separator := next((mark for mark in SEPARATORS if mark in header[0]), None)):
            raise InputError(
                f"{path} has one column, {header[0]!r:.60}. Its columns seem to be separated by "
                f"{SEPARATORS[separator]}; save it with commas."
            )
        number, line = 0, rows.line_num + 1
        for cells in rows:
            place, line = f"line {line}", rows.line_num + 1
            if not cells:
                continue
            number += 1
            if len(cells) == len(header):
                yield Record(number, place, dict(zip(header, cells, strict=True)))
            else:
                yield Record(
                    number, place, fault=f"it has {counted(len(cells), 'cell')}, and the header has {len(header)}"
                )
    except csv.Error as error:
        raise InputError(f"{path} is not valid CSV at line {rows.line_num}: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _of_parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ApportionError(
            'Parquet files need pyarrow, which is not installed: pip install "apportion[parquet]". '
            "JSON Lines and CSV need nothing else."
        ) from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a valid Parquet file: {error}.") from error
    for number, values in enumerate(rows, 1):
        yield Record(number, f"row {number}", values)
